//! Container and Kubernetes: that the YAML is YAML, refers to what is there, and grants what the unit
//! grants.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use yaml_rust2::Yaml;

use super::{
    Packaging,
    checks::{Checks, read},
    yaml::{documents, items, text},
};

/// Before Linux 5.11 alone; units and containers have a limit instead.
const FOR_OLD_KERNELS: &str = "CAP_SYS_RESOURCE";

pub(super) fn check(packaging: &Packaging<'_>, checks: &mut Checks) {
    checks.check("manifests: all YAML is YAML", || all_yaml(&packaging.root));
    checks.check("manifests: Kubernetes", || kubernetes(packaging));
    checks.check("manifests: everyone gets the same capabilities", || capabilities(packaging));
}

fn all_yaml(folder: &Path) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry.context("cannot list a folder")?.path();
        if path.is_dir() {
            all_yaml(&path)?;
        } else if path.extension().is_some_and(|ending| ending == "yml") {
            documents(&path)?;
        }
    }
    Ok(())
}

/// The document of a kind.
fn of_kind(documents: &[Yaml], kind: &str) -> Result<Yaml> {
    let found = documents.iter().find(|document| document["kind"].as_str() == Some(kind));
    found.cloned().with_context(|| format!("no {kind}"))
}

fn daemon_set(packaging: &Packaging<'_>) -> Result<Yaml> {
    of_kind(&documents(&packaging.path("kubernetes/daemonset.yml"))?, "DaemonSet")
}

fn kubernetes(packaging: &Packaging<'_>) -> Result<()> {
    let all = documents(&packaging.path("kubernetes/daemonset.yml"))?;
    let namespace = of_kind(&all, "Namespace")?;
    let set = of_kind(&all, "DaemonSet")?;
    let monitor = of_kind(&documents(&packaging.path("kubernetes/podmonitor.yml"))?, "PodMonitor")?;
    ensure!(set["apiVersion"].as_str() == Some("apps/v1"), "DaemonSets are of apps/v1");

    let name = text(&namespace["metadata"]["name"], "name of the namespace")?;
    for document in [&set, &monitor] {
        let its = text(&document["metadata"]["namespace"], "namespace")?;
        ensure!(its == name, "namespace {its} is not {name}");
    }
    let (template, spec) = (&set["spec"]["template"], &set["spec"]["template"]["spec"]);
    let labels = &template["metadata"]["labels"];
    for selector in [&set["spec"]["selector"], &monitor["spec"]["selector"]] {
        ensure!(
            !labels.is_badvalue() && &selector["matchLabels"] == labels,
            "a selector does not select the pods"
        );
    }
    for field in ["hostPID", "hostNetwork"] {
        ensure!(spec[field].as_bool() == Some(true), "no {field}");
    }
    let Some([container]) = spec["containers"].as_vec().map(Vec::as_slice) else {
        bail!("not one container");
    };
    let Some([port]) = container["ports"].as_vec().map(Vec::as_slice) else {
        bail!("not one port");
    };
    let (number, port_name) = (&port["containerPort"], &port["name"]);
    ensure!(&port["hostPort"] == number, "in the host's network, both ports are one");
    ensure!(&container["livenessProbe"]["httpGet"]["port"] == port_name, "the probe's port");
    ensure!(&container["readinessProbe"]["httpGet"]["port"] == port_name, "the other probe's port");
    // Where a pod's users look when it does not start; the default is a file that nobody writes.
    let policy = container["terminationMessagePolicy"].as_str();
    ensure!(policy == Some("FallbackToLogsOnError"), "errors are shown by {policy:?}");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    ensure!(&endpoint["port"] == port_name, "the monitor's port");
    let annotated = &template["metadata"]["annotations"]["prometheus.io/port"];
    let number = number.as_i64().context("no number of the port")?;
    ensure!(annotated.as_str() == Some(&number.to_string()), "the annotation's port");
    let listens = items(&container["args"]).filter_map(Yaml::as_str).last().unwrap_or_default();
    ensure!(listens.ends_with(&format!(":{number}")), "`{listens}` is not port {number}");
    for mount in items(&container["volumeMounts"]) {
        let known = items(&spec["volumes"]).any(|volume| volume["name"] == mount["name"]);
        ensure!(known, "no volume {:?}", mount["name"]);
    }
    Ok(())
}

fn capabilities(packaging: &Packaging<'_>) -> Result<()> {
    let mut needed = needs(&read(packaging.project.package().join("src/privilege.rs"))?);
    ensure!(needed.remove(FOR_OLD_KERNELS), "privilege.rs names no capabilities any more");
    let unit = read(packaging.path("systemd/dropwatch.service"))?;
    let containerfile = read(packaging.path("container/Containerfile"))?;
    let set = daemon_set(packaging)?;
    let security = &set["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    let granted = [
        ("AmbientCapabilities of the unit", after(&unit, "AmbientCapabilities=", ' ')),
        ("CapabilityBoundingSet of the unit", after(&unit, "CapabilityBoundingSet=", ' ')),
        ("the container", after(&containerfile, "--cap-add=", ',')),
        ("the DaemonSet", {
            let names = items(&security["capabilities"]["add"]).filter_map(Yaml::as_str);
            names.map(|name| format!("CAP_{name}")).collect()
        }),
    ];
    for (whose, granted) in granted {
        ensure!(granted == needed, "{whose}: {granted:?}, and dropwatch needs {needed:?}");
    }
    Ok(())
}

/// Every capability that `dropwatch doctor` asks for: the lines `capability: Capability::CAP_…,`.
fn needs(source: &str) -> BTreeSet<String> {
    source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("capability: Capability::"))
        .map(|name| name.trim_end_matches(',').to_owned())
        .collect()
}

/// The capabilities listed behind `key`, up to the next space where that does not separate them.
fn after(text: &str, key: &str, separator: char) -> BTreeSet<String> {
    let Some(list) = text.lines().find_map(|line| Some(line.split_once(key)?.1)) else {
        return BTreeSet::new();
    };
    let list = if separator == ' ' { list } else { list.split(' ').next().unwrap_or_default() };
    let full = |name: &str| match name.starts_with("CAP_") {
        true => name.to_owned(),
        false => format!("CAP_{name}"),
    };
    list.split(separator).filter(|name| !name.is_empty()).map(full).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn lists_of_capabilities() {
        let unit = "X=1\nAmbientCapabilities=CAP_BPF CAP_SYSLOG\n";
        assert_eq!(after(unit, "AmbientCapabilities=", ' '), set(&["CAP_BPF", "CAP_SYSLOG"]));
        let run = "#   --cap-add=BPF,SYSLOG \\\n";
        assert_eq!(after(run, "--cap-add=", ','), set(&["CAP_BPF", "CAP_SYSLOG"]));
        assert_eq!(after(run, "--cap-drop=", ','), set(&[]));
        let source = "        capability: Capability::CAP_BPF,\n        required: true,\n";
        assert_eq!(needs(source), set(&["CAP_BPF"]));
    }
}
