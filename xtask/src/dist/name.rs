//! Texts that name the command, where it has another name.

use super::NAME;

/// What stands before a command in a text: the beginning of a code span, of a field of an alert, or
/// what a shell has there.
const BEFORE: [&str; 9] = ["`", "`sudo ", "$ ", "sudo ", "; ", "| ", "&& ", "runbook: ", "(`"];

/// `text`, which is Markdown, YAML or JSON, with the command called `name`.
///
/// A command stands in a code span, in a block or in an alert's runbook. The program itself, its
/// unit, its metrics and its files keep their names.
pub(super) fn commands(text: &str, name: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut in_block = false;
    for line in text.split_inclusive('\n') {
        in_block ^= line.starts_with("```");
        let mut rest = line;
        while let Some(at) = rest.find(NAME) {
            let (before, after) = (&rest[..at], &rest[at + NAME.len()..]);
            let first = in_block && before.trim().is_empty() && result.ends_with(['\n', ' ']);
            let starts = first || BEFORE.iter().any(|text| before.ends_with(text));
            let ends = after.is_empty() || after.starts_with([' ', '`', '\n', ';']);
            result.push_str(before);
            result.push_str(if starts && ends { name } else { NAME });
            rest = after;
        }
        result.push_str(rest);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_renamed_and_nothing_else() {
        for (text, expected) in [
            ("Run `dropwatch doctor`.", "Run `X doctor`."),
            ("- `sudo dropwatch` (`dropwatch top`)", "- `sudo X` (`X top`)"),
            (
                "          runbook: systemctl status dropwatch; dropwatch doctor",
                "          runbook: systemctl status dropwatch; X doctor",
            ),
            ("          runbook: sudo dropwatch -i 5s", "          runbook: sudo X -i 5s"),
            ("```sh\nsudo dropwatch | wc\n```\n", "```sh\nsudo X | wc\n```\n"),
            (
                "```\ndropwatch --json |\n    dropwatch replay -\n",
                "```\nX --json |\n    X replay -\n",
            ),
            ("```\njournalctl -u dropwatch -o cat\n", "```\njournalctl -u dropwatch -o cat\n"),
            ("dropwatch writes lines.", "dropwatch writes lines."),
            ("  - job_name: dropwatch", "  - job_name: dropwatch"),
            (
                "up{job=\"dropwatch\"} dropwatch_drops_total",
                "up{job=\"dropwatch\"} dropwatch_drops_total",
            ),
            ("`dropwatch_drops_total`", "`dropwatch_drops_total`"),
            ("`dropwatch.service`, `dropwatch-ebpf`", "`dropwatch.service`, `dropwatch-ebpf`"),
            ("`/usr/local/bin/dropwatch`", "`/usr/local/bin/dropwatch`"),
        ] {
            assert_eq!(commands(text, "X"), expected);
        }
    }

    #[test]
    fn no_command_of_an_alert_is_forgotten() {
        let alerts = include_str!("../../../packaging/prometheus/alerts.yml");
        let renamed = commands(alerts, "X");
        let runbooks = renamed.lines().filter(|line| line.trim().starts_with("runbook:"));
        for line in runbooks {
            assert!(line.contains(" X"), "{line}");
            assert!(
                !line
                    .replace("systemctl status dropwatch", "")
                    .replace("systemctl restart dropwatch", "")
                    .contains("dropwatch"),
                "{line}"
            );
        }
        assert_eq!(commands(alerts, NAME), alerts);
    }
}
