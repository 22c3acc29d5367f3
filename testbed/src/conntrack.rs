//! Tables of tracked connections: filled at will, and listed by `conntrack`, entry by entry.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::PathBuf,
};

use anyhow::{Context, Result};

use crate::{command::output, netns::Netns, undo::Undo};

/// Puts connections into the table of `netns`, each given as the options of `conntrack -A`. For
/// `conntrack` itself it is one run, so hundreds of thousands take seconds.
///
/// `conntrack` passes over an entry that the kernel refuses, for example because there is one with
/// the same addresses already: look at what is there.
///
/// # Errors
/// Without root or `conntrack`, and when an entry makes no sense.
pub fn fill(netns: &Netns, entries: impl IntoIterator<Item = String>) -> Result<()> {
    let path = PathBuf::from(format!("/run/{}.conntrack", netns.name()));
    let _undo = {
        let path = path.clone();
        Undo::new(move || Ok(fs::remove_file(path)?))?
    };
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut file = BufWriter::new(file);
    for entry in entries {
        writeln!(file, "-A {entry}")?;
    }
    file.flush()?;
    output(netns.command("conntrack").arg("-R").arg(&path)).map(drop)
}

/// One line of `conntrack -L`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    pub protocol: String,
    /// `TIME_WAIT`; for protocols without states whether it was `ASSURED`, `REPLIED` or is
    /// `UNREPLIED`.
    pub state: String,
    pub source: String,
    /// Address and port, without the port for protocols that have none.
    pub destination: (String, Option<u16>),
    /// Where replies come from.
    pub replier: (String, Option<u16>),
}

/// All that the table of `netns` holds, of both families.
///
/// # Errors
/// When `conntrack` fails, or a line of it is not understood.
pub fn list(netns: &Netns) -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let mut command = netns.command("conntrack");
        let text = output(command.args(["-L", "-o", "extended", "-f", family]))?;
        for line in text.lines() {
            connections.push(parse(line).with_context(|| format!("cannot read `{line}`"))?);
        }
    }
    connections.sort_unstable();
    Ok(connections)
}

/// `ipv4 2 tcp 6 117 TIME_WAIT src=… dst=… sport=… dport=… src=… dst=… sport=… dport=… [ASSURED] …`
fn parse(line: &str) -> Option<Connection> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let pairs = || words.iter().filter_map(|word| word.split_once('='));
    let all = |key: &str| -> Vec<&str> {
        pairs().filter(|(name, _)| *name == key).map(|(_, value)| value).collect()
    };
    let (src, dst, sport, dport) = (all("src"), all("dst"), all("sport"), all("dport"));
    let port = |ports: &[&str], n: usize| ports.get(n).and_then(|port| port.parse().ok());
    let marked = |mark: &str| words.contains(&mark);
    let own = words.get(5).filter(|word| !word.contains('='));
    let state = match own {
        Some(own) => own,
        None if marked("[ASSURED]") => "ASSURED",
        None if marked("[UNREPLIED]") => "UNREPLIED",
        None => "REPLIED",
    };
    Some(Connection {
        protocol: (*words.get(2)?).to_owned(),
        state: state.to_owned(),
        source: (*src.first()?).to_owned(),
        destination: ((*dst.first()?).to_owned(), port(&dport, 0)),
        replier: ((*src.get(1)?).to_owned(), port(&sport, 1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_states_marks_and_without_ports() {
        let tcp = parse(
            "ipv4     2 tcp      6 117 TIME_WAIT src=10.0.0.2 dst=10.0.0.1 sport=4 dport=8080 \
             src=10.0.1.2 dst=10.0.0.2 sport=80 dport=4 [ASSURED] mark=0 use=1",
        )
        .unwrap();
        assert_eq!((tcp.protocol.as_str(), tcp.state.as_str()), ("tcp", "TIME_WAIT"));
        assert_eq!(tcp.destination, ("10.0.0.1".to_owned(), Some(8080)));
        assert_eq!(tcp.replier, ("10.0.1.2".to_owned(), Some(80)));
        let udp = parse(
            "ipv6     10 udp      17 29 src=fd00::2 dst=fd00::1 sport=4 dport=53 [UNREPLIED] \
             src=fd00::1 dst=fd00::2 sport=53 dport=4 mark=0 use=1",
        )
        .unwrap();
        assert_eq!((udp.source.as_str(), udp.state.as_str()), ("fd00::2", "UNREPLIED"));
        let icmp = parse(
            "ipv4     2 icmp     1 29 src=10.0.0.2 dst=10.0.0.1 type=8 code=0 id=7 src=10.0.0.1 \
             dst=10.0.0.2 type=0 code=0 id=7 mark=0 use=1",
        )
        .unwrap();
        assert_eq!(icmp.state, "REPLIED");
        assert_eq!(icmp.destination, ("10.0.0.1".to_owned(), None));
        assert_eq!(parse("conntrack v1.4.7"), None);
    }
}
