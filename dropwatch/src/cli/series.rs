//! How many series metrics have.

use std::net::SocketAddr;

use clap::Args;

use crate::{
    report::totals::{MOST_NAMESPACES, NAMESPACES, OTHER},
    settings,
};

#[derive(Debug, Args)]
pub struct SeriesArgs {
    #[arg(
        long,
        value_name = "N",
        requires = "metrics",
        value_parser = namespaces,
        help = format!(
            "Network namespaces with metrics of their own; later ones are summed as `{OTHER}` \
             [default: {NAMESPACES}]"
        )
    )]
    pub metrics_namespaces: Option<usize>,
}

impl SeriesArgs {
    /// What is served at `address`.
    pub fn at(&self, address: SocketAddr) -> settings::Metrics {
        let namespaces = self.metrics_namespaces.unwrap_or(NAMESPACES);
        settings::Metrics { address, namespaces }
    }
}

fn namespaces(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=MOST_NAMESPACES) => Ok(number),
        Ok(_) => Err(format!("must be from 1 to {MOST_NAMESPACES}, since each is several series")),
        Err(_) => Err("not a whole number".to_owned()),
    }
}
