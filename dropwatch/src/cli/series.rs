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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::{cli::Cli, report::totals::NAMESPACES};

    /// How many namespaces have series of their own, or what is wrong.
    fn namespaces(args: &[&str]) -> Result<usize, String> {
        let args = ["dropwatch", "--metrics", "9435"].iter().chain(args);
        let cli = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
        let what = cli.watch.what;
        Ok(what.series.at(what.metrics.expect("typed")).namespaces)
    }

    #[test]
    fn a_bound_is_a_number_of_namespaces_and_goes_with_metrics_alone() {
        assert_eq!(namespaces(&[]), Ok(NAMESPACES));
        assert_eq!(namespaces(&["--metrics-namespaces", "1"]), Ok(1));
        assert_eq!(namespaces(&["--metrics-namespaces", "10000"]), Ok(10_000));
        for wrong in ["0", "10001", "all", ""] {
            let refused = namespaces(&["--metrics-namespaces", wrong]).expect_err(wrong);
            assert!(refused.contains("--metrics-namespaces"), "{wrong}: {refused}");
        }
        let alone = ["dropwatch", "--metrics-namespaces", "5"];
        let refused = Cli::try_parse_from(alone).expect_err("without metrics").to_string();
        assert!(refused.contains("--metrics <ADDR>"), "{refused}");
        let replayed = ["dropwatch", "replay", "f", "--metrics", "1", "--metrics-namespaces", "5"];
        assert!(Cli::try_parse_from(replayed).is_ok());
    }
}
