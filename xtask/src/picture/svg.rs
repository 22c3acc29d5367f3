//! What a terminal shows → SVG.
//!
//! Knows the escape sequences that `tmux capture-pane -e` writes: select graphic rendition
//! (ECMA-48, 8.3.117) alone. What it does not know is an error, so that no picture is wrong.

use std::fmt::Write;

use anyhow::{Context, Result, bail};

/// Size of a character, pixels.
const CELL: (f64, f64) = (8.4, 18.0);
/// Room around the text, and above it for the line of a window, pixels.
const MARGIN: f64 = 14.0;
/// The text is this size, pixels; its base line is so far below the top of a cell.
const FONT: u32 = 14;
const BASE: f64 = 13.5;

/// The eight colours on this ground, and what text and ground are without any.
const HUES: [&str; 8] =
    ["#3b4252", "#ff6b68", "#8cc570", "#d8b45c", "#6a9fe8", "#e58ae0", "#5bc4c9", "#e6e6e6"];
const TEXT: &str = "#d8dee4";
const GROUND: &str = "#1b1f24";

/// How characters look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    /// One of the eight colours.
    hue: Option<usize>,
    bold: bool,
    dim: bool,
    reversed: bool,
}

impl Look {
    /// Takes in the parameters of one sequence.
    fn select(&mut self, parameters: &str) -> Result<()> {
        let mut parameters = parameters.split(';').map(|number| number.parse().unwrap_or(0));
        while let Some(parameter) = parameters.next() {
            match parameter {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                7 => self.reversed = true,
                22 => (self.bold, self.dim) = (false, false),
                27 => self.reversed = false,
                hue @ 30..=37 => self.hue = Some(hue - 30),
                // One of 256 colours, the first of which are the eight.
                38 => match (parameters.next(), parameters.next()) {
                    (Some(5), Some(hue)) if hue < HUES.len() => self.hue = Some(hue),
                    other => bail!("colour {other:?} is not one that this draws"),
                },
                39 => self.hue = None,
                49 => {}
                other => bail!("rendition {other} is not one that this draws"),
            }
        }
        Ok(())
    }
}

/// Characters of one look, from a column on.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    column: usize,
    look: Look,
    text: String,
}

/// Draws `screen`, `size` columns and lines.
///
/// # Errors
/// Where it holds an escape sequence that is not known.
pub(super) fn draw(screen: &str, size: (usize, usize)) -> Result<String> {
    let (width, height) =
        (size.0 as f64 * CELL.0 + 2.0 * MARGIN, size.1 as f64 * CELL.1 + 2.0 * MARGIN);
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.1} {height:.1}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\n\
         <title>dropwatch top</title>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{GROUND}\"/>\n\
         <g font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"{FONT}\" \
         fill=\"{TEXT}\" xml:space=\"preserve\">\n"
    );
    let mut look = Look::default();
    for (index, line) in screen.lines().take(size.1).enumerate() {
        let top = MARGIN + index as f64 * CELL.1;
        for run in runs(line, &mut look)? {
            set(&run, top, &mut picture);
        }
    }
    picture += "</g>\n</svg>\n";
    Ok(picture)
}

/// Appends a run, on a line whose top is there.
fn set(run: &Run, top: f64, picture: &mut String) {
    let Run { column, look, text } = run;
    let left = MARGIN + *column as f64 * CELL.0;
    let width = text.chars().count() as f64 * CELL.0;
    let hue = look.hue.map_or(TEXT, |hue| HUES[hue]);
    let (mut style, mut color) = (String::new(), hue);
    if look.reversed {
        let height = CELL.1;
        // Writing to a String cannot fail, here and below.
        let _infallible = writeln!(
            picture,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{hue}\"/>"
        );
        color = GROUND;
    }
    if text.trim().is_empty() {
        return;
    }
    if color != TEXT {
        style += &format!(" fill=\"{color}\"");
    }
    if look.bold {
        style += " font-weight=\"bold\"";
    }
    if look.dim {
        style += " opacity=\"0.6\"";
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let base = top + BASE;
    // Whatever font there is, each run takes its columns.
    let _infallible = writeln!(
        picture,
        "<text x=\"{left:.1}\" y=\"{base:.1}\" textLength=\"{width:.1}\" \
         lengthAdjust=\"spacingAndGlyphs\"{style}>{text}</text>"
    );
}

/// The runs of a line; `look` is how its first character looks, and afterwards that of the next.
fn runs(line: &str, look: &mut Look) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let (mut column, mut rest) = (0, line);
    while let Some(c) = rest.chars().next() {
        if c == '\x1b' {
            let sequence = rest.strip_prefix("\x1b[").context("an escape that is no sequence")?;
            let (parameters, after) =
                sequence.split_once('m').context("an escape sequence that never ends")?;
            look.select(parameters)?;
            rest = after;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match runs.last_mut() {
            Some(run) if run.look == *look => run.text.push(c),
            _ => runs.push(Run { column, look: *look, text: c.into() }),
        }
        column += 1;
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_begin_where_the_look_changes() {
        let mut look = Look::default();
        let found = runs("ab\x1b[1m\x1b[31mcd\x1b[0;2mé", &mut look).unwrap();
        let run = |column, look, text: &str| Run { column, look, text: text.to_owned() };
        let bold = Look { bold: true, hue: Some(1), ..Look::default() };
        let dim = Look { dim: true, ..Look::default() };
        assert_eq!(found, [run(0, Look::default(), "ab"), run(2, bold, "cd"), run(4, dim, "é")]);
        assert_eq!(look, dim, "the next line goes on like this");
    }

    #[test]
    fn a_picture_holds_the_text_and_no_markup_of_it() {
        let picture = draw("a <b> & c\n\x1b[7mrow\x1b[27m\n\x1b[38;5;5mwarning", (20, 3)).unwrap();
        assert!(picture.contains(">a &lt;b&gt; &amp; c</text>"), "{picture}");
        assert!(picture.contains("fill=\"#1b1f24\">row</text>"), "{picture}");
        assert!(picture.contains("fill=\"#e58ae0\">warning</text>"), "{picture}");
        assert_eq!(picture.matches("<rect").count(), 2, "the ground and the selected row");
    }

    #[test]
    fn what_is_not_known_is_not_drawn_wrongly() {
        for screen in ["\x1b[4mx", "\x1b]0;title\x07", "\x1b[38;5;8mx", "\x1b[2"] {
            assert!(draw(screen, (20, 1)).is_err(), "{screen:?}");
        }
    }
}
