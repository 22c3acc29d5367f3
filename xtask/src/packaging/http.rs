//! As much HTTP as tests on loopback need: one request, one answer, and the end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// Longest wait for the other side.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers every GET with what `page` makes, on a free loopback port, until the process ends.
///
/// # Errors
/// If there is no port.
pub(super) fn serve(
    content_type: &'static str,
    page: impl Fn() -> String + Send + 'static,
) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no loopback port")?;
    let address = listener.local_addr().context("no address of a listener")?;
    thread::spawn(move || {
        // Whoever asked and went away gets no answer; the next one does.
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, content_type, &page());
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream, content_type: &str, page: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(&stream).lines();
    // To the empty line after the request's headers: a GET has nothing behind it.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{page}",
        page.len()
    )
}

/// The body of the answer to a GET; of any status, since Prometheus explains errors there.
///
/// # Errors
/// If nobody answers there, or not in HTTP.
pub(super) fn get(address: SocketAddr, target: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("nobody listens on {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // Version 1.0: the answer comes in one piece and ends with the connection.
    write!(stream, "GET {target} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("no answer of {address}"))?;
    parse(&answer).with_context(|| format!("{address} does not speak HTTP"))
}

fn parse(answer: &str) -> Result<(u16, String)> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("no end of headers") };
    let status = head.split(' ').nth(1).context("no status")?;
    Ok((status.parse().context("no status")?, body.to_owned()))
}

/// A text as part of a query string.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("%{byte:02X}");
        }
    }
    escaped
}

/// A loopback port that was free a moment ago.
///
/// # Errors
/// If there is none.
pub(super) fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no loopback port")?;
    listener.local_addr().context("no address of a listener")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_is_got() {
        let address = serve("text/plain", || "one\ntwo\n".to_owned()).unwrap();
        assert_eq!(get(address, "/metrics").unwrap(), (200, "one\ntwo\n".to_owned()));
        assert_eq!(get(address, "/").unwrap().0, 200);
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escape("up{a=\"b c\"}"), "up%7Ba%3D%22b%20c%22%7D");
    }

    #[test]
    fn what_is_no_answer() {
        parse("hello").unwrap_err();
        parse("HTTP/1.0 fine\r\n\r\n").unwrap_err();
    }
}
