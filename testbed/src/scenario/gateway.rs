//! Three namespaces: a client, a NAT gateway, and behind its bridge a web server.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{command, counters, link, load::Server, machine, netns::Netns, undo::Undo};

/// Addresses set aside for benchmarks (RFC 2544), so that none can be somebody's.
pub const CLIENT: &str = "198.18.1.2";
pub const OUTSIDE: &str = "198.18.1.1";
pub(super) const INSIDE: &str = "198.18.2.1";
pub(super) const WEB: &str = "198.18.2.2";
/// The gateway's link to the client.
pub const OUTSIDE_LINK: &str = "outside";
/// Port of the gateway that leads to the web server.
pub const PORT: u16 = 8080;

/// Who answers and who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tools {
    /// nginx and ab, which everybody knows.
    NginxAndAb,
    /// The testbed's own ([`crate::load`]), which every machine has.
    Own,
}

/// A running web server.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its end")]
enum Web {
    Nginx(Nginx),
    Own(Server),
}

/// The network, with a web server running.
#[derive(Debug)]
pub(super) struct Gateway {
    client: Netns,
    gateway: Netns,
    /// Before `web` and its folder, so that the server ends before they go.
    _server: Web,
    _web: Netns,
}

impl Gateway {
    /// Builds the network and waits until the web server answers through the gateway.
    pub(super) fn new(tools: Tools) -> Result<Self> {
        let (client, gateway, web) =
            (Netns::new("client")?, Netns::new("gateway")?, Netns::new("web")?);
        link::veth(&client, "eth0", &gateway, OUTSIDE_LINK)?;
        link::veth(&web, "eth0", &gateway, "port0")?;
        gateway.ip("link add br0 type bridge")?;
        gateway.ip("link set port0 master br0")?;
        for (netns, link, address) in [
            (&client, "eth0", CLIENT),
            (&gateway, OUTSIDE_LINK, OUTSIDE),
            (&gateway, "br0", INSIDE),
            (&web, "eth0", WEB),
        ] {
            netns.ip(&format!("address add {address}/24 dev {link}"))?;
            netns.ip(&format!("link set {link} up"))?;
        }
        gateway.ip("link set port0 up")?;
        client.ip(&format!("route add default via {OUTSIDE}"))?;
        web.ip(&format!("route add default via {INSIDE}"))?;
        // Room for every connection of a load, even while earlier ones are still in TIME_WAIT.
        client.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        gateway.sysctl("net/ipv4/ip_forward", "1")?;
        command::output(
            gateway.command("iptables-legacy").args(
                format!(
                    "-w -t nat -A PREROUTING -d {OUTSIDE} -p tcp --dport {PORT} \
                 -j DNAT --to-destination {WEB}:80"
                )
                .split_whitespace(),
            ),
        )?;
        let server = match tools {
            Tools::NginxAndAb => Web::Nginx(Nginx::start(&web)?),
            Tools::Own => Web::Own(Server::start(&web, format!("{WEB}:80").parse()?)?),
        };
        let this = Self { client, gateway, _server: server, _web: web };
        this.wait_for_answer()?;
        Ok(this)
    }

    /// Packets that the gateway's connection tracking has dropped so far.
    pub(super) fn conntrack_drops(&self) -> Result<u64> {
        counters::conntrack(&self.gateway, "drop")
    }

    /// Name of the namespace that drops.
    pub(super) fn name(&self) -> &str {
        self.gateway.name()
    }

    /// Where the requests come from.
    pub(super) fn client(&self) -> &Netns {
        &self.client
    }

    /// Takes the gateway's links down: no packet comes any more that conntrack could drop. The
    /// last ones of the load arrive before: without the one link, those that came in by the other
    /// would have no route.
    pub(super) fn quiet(&self) -> Result<()> {
        link::wait_until_quiet(
            &self.gateway,
            OUTSIDE_LINK,
            machine::longer(Duration::from_millis(300)),
        )?;
        self.gateway.ip(&format!("link set {OUTSIDE_LINK} down"))?;
        self.gateway.ip("link set br0 down")?;
        Ok(())
    }

    /// One connection through the gateway; it also resolves the neighbours, so that no packet of
    /// the load waits for that.
    fn wait_for_answer(&self) -> Result<()> {
        let address: SocketAddr = format!("{OUTSIDE}:{PORT}").parse()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        self.client.enter(|| {
            loop {
                match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
                    Ok(_) => return Ok(()),
                    Err(error) if Instant::now() > deadline => {
                        return Err(error)
                            .context("the web server does not answer through the gateway");
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        })
    }
}

/// nginx as one process in the foreground, with a folder of its own.
#[derive(Debug)]
struct Nginx {
    child: Child,
    _folder: Undo,
}

impl Nginx {
    fn start(web: &Netns) -> Result<Self> {
        let folder = PathBuf::from(format!("/run/{}", web.name()));
        let undo = {
            let folder = folder.clone();
            Undo::new(move || match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            })?
        };
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = folder.join("nginx.conf");
        fs::write(&config, CONFIG.replace("WEB", WEB))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = web.command("nginx");
        command
            .arg("-p")
            .arg(&folder)
            .arg("-e")
            .arg(folder.join("error.log"))
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().context("cannot run nginx; is it installed?")?;
        std::thread::sleep(Duration::from_millis(100));
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(folder.join("error.log")).unwrap_or_default();
            bail!("nginx ended ({status}): {}", log.trim());
        }
        Ok(Self { child, _folder: undo })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Relative paths are below the folder. One process: it cannot leave workers behind.
const CONFIG: &str = "\
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen WEB:80 backlog=4096;
        location / { return 200 \"hello\\n\"; }
    }
}
";
