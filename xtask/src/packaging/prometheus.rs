//! A Prometheus server for a test: on a loopback port, with a folder of its own, for as long as the
//! test takes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Packaging,
    checks::read,
    http::{escape, free_port, get},
    rules::RULES,
};

/// Scrapes and evaluations are this far apart, so that tests are short.
const STEP: &str = "1s";
/// How long a server may take to start, and an answer to become what it should be.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A host that is scraped.
pub(super) struct Target {
    pub(super) instance: String,
    pub(super) address: SocketAddr,
}

/// A running server; ends with this value.
pub(super) struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

/// One series of an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Series {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    result: Value,
}

#[derive(Deserialize)]
struct Vector {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

impl Prometheus {
    /// Starts one that scrapes `targets` every second, with the rules of `packaging/`.
    ///
    /// # Errors
    /// If it does not start, with what it says.
    pub(super) fn start(
        packaging: &Packaging<'_>,
        program: &Path,
        name: &str,
        targets: &[Target],
    ) -> Result<Self> {
        let folder = packaging.scratch(name)?;
        let config = folder.join("prometheus.yml");
        fs::write(&config, configuration(packaging, targets)?).context("no configuration")?;
        let log = File::create(folder.join("log")).context("no log file")?;
        let address = free_port()?;
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut server = Self { child, address, folder };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if get(self.address, "/-/ready").is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().context("cannot ask for Prometheus")? {
                let log = read(self.folder.join("log")).unwrap_or_default();
                bail!("Prometheus ended: {status}: {}", log.trim());
            }
            if start.elapsed() > PATIENCE {
                bail!("Prometheus is not ready after {} s", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the server answers now.
    ///
    /// # Errors
    /// If the query does not parse, with what the server says of it.
    pub(super) fn query(&self, query: &str) -> Result<Vec<Series>> {
        let target = format!("/api/v1/query?query={}", escape(query));
        let result = self.ask(&target).with_context(|| format!("query `{query}`"))?;
        if let Ok((_, value)) = serde_json::from_value::<(f64, String)>(result.clone()) {
            return Ok(vec![Series { labels: BTreeMap::new(), value: number(&value)? }]);
        }
        let vector: Vec<Vector> = serde_json::from_value(result)
            .with_context(|| format!("`{query}` gives neither a vector nor a number"))?;
        vector
            .into_iter()
            .map(|Vector { metric, value: (_, value) }| {
                Ok(Series { labels: metric, value: number(&value)? })
            })
            .collect()
    }

    /// Asks until `is_right` says so of the answer.
    ///
    /// # Errors
    /// As of [`Self::query`]; or with the last answer, when time is over.
    pub(super) fn wait_for(
        &self,
        query: &str,
        is_right: impl Fn(&[Series]) -> bool,
    ) -> Result<Vec<Series>> {
        let start = Instant::now();
        loop {
            let answer = self.query(query)?;
            if is_right(&answer) {
                return Ok(answer);
            }
            if start.elapsed() > PATIENCE {
                bail!("`{query}` gives {answer:?}");
            }
            thread::sleep(Duration::from_millis(250));
        }
    }

    /// The values that a label has on a metric, as a dashboard's variable asks.
    ///
    /// # Errors
    /// If the server refuses.
    pub(super) fn label_values(&self, metric: &str, label: &str) -> Result<Vec<String>> {
        let target = format!("/api/v1/label/{label}/values?match[]={}", escape(metric));
        let (_, body) = get(self.address, &target)?;
        let answer: Value = serde_json::from_str(&body).context("no JSON")?;
        serde_json::from_value(answer["data"].clone()).with_context(|| format!("answer {body}"))
    }

    /// That every rule could be evaluated.
    ///
    /// # Errors
    /// With the rule and the server's reason.
    pub(super) fn check_rules(&self) -> Result<()> {
        let (_, body) = get(self.address, "/api/v1/rules")?;
        let answer: Value = serde_json::from_str(&body).context("no JSON")?;
        let groups = answer["data"]["groups"].as_array().context("no groups")?;
        let rules: Vec<&Value> =
            groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
        if rules.is_empty() {
            bail!("the server has no rules");
        }
        for rule in rules {
            if rule["health"] != "ok" {
                bail!("rule {}: {} {}", rule["name"], rule["health"], rule["lastError"]);
            }
        }
        Ok(())
    }

    fn ask(&self, target: &str) -> Result<Value> {
        let (_, body) = get(self.address, target)?;
        let answer: Answer = serde_json::from_str(&body).context("no JSON")?;
        match answer {
            Answer { data: Some(data), error: None } => Ok(data.result),
            Answer { error, .. } => bail!("{}", error.unwrap_or_default()),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Nothing can be done about one that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Values come as text: `NaN` and `+Inf` have no number in JSON.
fn number(text: &str) -> Result<f64> {
    text.parse().with_context(|| format!("`{text}` is no number"))
}

/// JSON is YAML.
fn configuration(packaging: &Packaging<'_>, targets: &[Target]) -> Result<String> {
    let hosts: Vec<Value> = targets
        .iter()
        .map(|Target { instance, address }| {
            serde_json::json!({"targets": [address], "labels": {"instance": instance}})
        })
        .collect();
    let config = serde_json::json!({
        "global": {"scrape_interval": STEP, "scrape_timeout": STEP, "evaluation_interval": STEP},
        "rule_files": RULES.map(|name| packaging.path(name)),
        "scrape_configs": [{"job_name": "dropwatch", "static_configs": hosts}],
    });
    serde_json::to_string_pretty(&config).context("cannot write a configuration")
}
