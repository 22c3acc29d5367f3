//! Texts that name the command, where it has another name.

use super::NAME;

/// What stands before a command wherever it is, and in a shell's line alone.
const BEFORE: [&str; 3] = ["sudo ", "$ ", "runbook: "];
const IN_SHELL: [&str; 3] = ["; ", "| ", "&& "];

/// `text`, which is Markdown, YAML or JSON, with the command called `name`.
///
/// A command stands in a code span, in a block or in an alert's runbook, and in a span not alone: that
/// may be a field or a job of this name. The program itself, its unit, its metrics and its files keep
/// their names.
pub(super) fn commands(text: &str, name: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut in_block = false;
    for line in text.split_inclusive('\n') {
        in_block ^= line.starts_with("```");
        let in_shell = in_block || line.contains("runbook: ");
        let mut rest = line;
        let mut first = in_block;
        while let Some(at) = rest.find(NAME) {
            let (before, after) = (&rest[..at], &rest[at + NAME.len()..]);
            let follows = |texts: &[&str]| texts.iter().any(|text| before.ends_with(text));
            let starts = (first && before.trim().is_empty())
                || follows(&BEFORE)
                || (in_shell && follows(&IN_SHELL))
                || (before.ends_with('`') && after.starts_with(' '));
            let ends = after.is_empty() || after.starts_with([' ', '`', '\n', ';']);
            result.push_str(before);
            result.push_str(if starts && ends { name } else { NAME });
            rest = after;
            first = false;
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
            ("it waits; dropwatch starts", "it waits; dropwatch starts"),
            ("| `dropwatch` | version of dropwatch |", "| `dropwatch` | version of dropwatch |"),
            ("a job called `dropwatch`", "a job called `dropwatch`"),
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
