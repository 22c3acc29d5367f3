//! Manual pages: one for the command, one for each subcommand that help shows.

use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

/// File names and contents. `date` stands at the foot of each.
///
/// # Errors
/// None that can happen: pages are written to memory.
pub(crate) fn all(command: &Command, date: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let source = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
    let mut family = Vec::new();
    names(&command, &mut family);
    let mut pages = Vec::new();
    add(&command, &Foot { source, date: date.to_owned() }, &family, &mut pages)?;
    Ok(pages)
}

/// What stands below every page.
struct Foot {
    source: String,
    date: String,
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set())
}

/// `dropwatch-replay` for `dropwatch replay`.
fn title(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn names(command: &Command, found: &mut Vec<String>) {
    found.push(title(command).to_owned());
    shown(command).for_each(|sub| names(sub, found));
}

fn add(
    command: &Command,
    foot: &Foot,
    family: &[String],
    pages: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let text = page(command, foot, family).context("cannot write to memory")?;
    pages.push((format!("{}.1", title(command)), text));
    shown(command).try_for_each(|sub| add(sub, foot, family, pages))
}

fn page(command: &Command, foot: &Foot, family: &[String]) -> std::io::Result<Vec<u8>> {
    let man = Man::new(synopsis(command.clone()))
        .title(title(command).to_uppercase())
        .date(&foot.date)
        .source(&foot.source)
        .manual("User Commands");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    // Names of commands and options must not be broken, nor lines be torn apart to fill the page.
    text.extend_from_slice(b".nh\n.ad l\n");
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if shown(command).next().is_some() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    let help = command.get_after_long_help().or_else(|| command.get_after_help());
    if let Some(help) = help {
        below(&help.to_string(), &mut rest);
    }
    see_also(title(command), family, &mut rest);
    rest.to_writer(&mut text)?;
    Ok(text)
}

/// With the usage that help has: clap's page would name every option, and not say that a
/// subcommand and options of the command itself exclude each other.
fn synopsis(mut command: Command) -> Command {
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    command.override_usage(usage)
}

/// What help shows below the options, as sections of a page: clap's own would run lines together.
///
/// A paragraph under a line that ends with a colon is a section of that name; `Exit codes: …` is
/// the section that every page has it in; all else are notes. Indented lines stay as they are.
fn below(help: &str, roff: &mut Roff) {
    let mut notes = false;
    for paragraph in paragraphs(help) {
        let head = paragraph[0].strip_suffix(':').filter(|_| paragraph.len() > 1);
        let codes = paragraph[0].strip_prefix("Exit codes: ");
        if let Some(head) = head {
            roff.control("SH", [head.to_uppercase().as_str()]);
            lines(&paragraph[1..], roff);
        } else if let Some(codes) = codes {
            roff.control("SH", ["EXIT STATUS"]);
            lines(&[&[codes], &paragraph[1..]].concat(), roff);
        } else {
            match notes {
                false => roff.control("SH", ["NOTES"]),
                true => roff.control("PP", []),
            };
            lines(&paragraph, roff);
        }
        notes = head.is_none() && codes.is_none();
    }
}

/// Lines that are indented as they are, others filled.
fn lines(lines: &[&str], roff: &mut Roff) {
    for part in lines.chunk_by(|a, b| a.starts_with(' ') == b.starts_with(' ')) {
        let indented = part[0].starts_with(' ');
        if indented {
            roff.control("nf", []);
        }
        for line in part {
            roff.text([roman(*line)]);
        }
        if indented {
            roff.control("fi", []);
        }
    }
}

/// Lines between empty ones; each has at least one.
fn paragraphs(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = text.lines().collect();
    let parts = lines.split(|line| line.trim().is_empty());
    parts.filter(|part| !part.is_empty()).map(<[_]>::to_vec).collect()
}

/// The other pages.
fn see_also(own: &str, family: &[String], roff: &mut Roff) {
    let others: Vec<&String> = family.iter().filter(|name| *name != own).collect();
    if others.is_empty() {
        return;
    }
    roff.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for (index, name) in others.iter().enumerate() {
        line.push(bold(name.as_str()));
        line.push(roman(if index + 1 < others.len() { "(1), " } else { "(1)" }));
    }
    roff.text(line);
}

#[cfg(test)]
mod tests {
    use clap::{Arg, CommandFactory};
    use dropwatch::cli::Cli;

    use super::*;

    fn pages(command: &Command) -> Vec<(String, String)> {
        let text = |(name, content)| (name, String::from_utf8(content).unwrap());
        all(command, "2026-01-02").unwrap().into_iter().map(text).collect()
    }

    #[test]
    fn every_command_that_help_shows_has_a_page() {
        let command = Cli::command();
        let pages = pages(&command);
        assert_eq!(pages[0].0, "dropwatch.1");
        assert_eq!(pages.len(), 1 + shown(&command).count());
        for sub in shown(&command) {
            let name = format!("dropwatch-{}", sub.get_name());
            let (_, page) = pages.iter().find(|(file, _)| *file == format!("{name}.1")).unwrap();
            assert!(page.contains(&format!(r".TH {}", name.to_uppercase())), "{page}");
            assert!(page.contains("2026-01-02") && page.contains(".SH SYNOPSIS"), "{page}");
            assert!(page.contains(r"\fBdropwatch\fR(1)"), "{page}");
        }
        // Not one of `dropwatch help`, which clap adds.
        assert!(!pages.iter().any(|(file, _)| file.contains("help")));
    }

    #[test]
    fn hidden_commands_and_options_have_none() {
        let secret = Command::new("secret").hide(true);
        let command =
            Command::new("x").subcommand(secret).arg(Arg::new("q").long("quiet").hide(true));
        let pages = pages(&command);
        assert_eq!(pages.len(), 1);
        assert!(!pages[0].1.contains("secret") && !pages[0].1.contains("quiet"));
    }

    #[test]
    fn examples_keep_their_lines() {
        let help = "Examples:\n  x -a   one\n  x -b   two\n\nExit codes: 0 fine,\n1 not.\n\nSo\nit is:\n  a\n    b\nc\n\nAnd so.";
        let mut roff = Roff::new();
        below(help, &mut roff);
        let expected = [
            ".SH EXAMPLES",
            ".nf",
            r"  x \-a   one",
            r"  x \-b   two",
            ".fi",
            r#".SH "EXIT STATUS""#,
            "0 fine,",
            "1 not.",
            ".SH NOTES",
            "So",
            "it is:",
            ".nf",
            "  a",
            "    b",
            ".fi",
            "c",
            ".PP",
            "And so.\n",
        ]
        .join("\n");
        assert!(roff.to_roff().ends_with(&expected), "{}", roff.to_roff());
    }
}
