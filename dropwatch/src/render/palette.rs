//! The few ways in which text stands out. Renderers always use them: [`Medium`](super::Medium) takes
//! them out again where the reader has no colours.
//!
//! The only hues are red and magenta. Of a terminal's eight colours, these alone keep a contrast of
//! three to one on a black and on a white ground, the least that WCAG 2.1 asks of what is not body
//! text (success criterion 1.4.11).

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

pub(crate) const STRONG: Style = Style::new().bold();
pub(crate) const WEAK: Style = Style::new().dimmed();
/// Something is lost or fails.
pub(crate) const ALARM: Style = AnsiColor::Red.on_default().bold();
/// Something deserves a look.
pub(crate) const CAUTION: Style = AnsiColor::Magenta.on_default();

/// `text` in `style`.
pub(super) fn paint(style: Style, text: impl Display) -> String {
    let text = text.to_string();
    if text.is_empty() { text } else { format!("{style}{text}{style:#}") }
}

#[cfg(test)]
mod tests {
    use anstyle::Color;

    use super::*;

    /// The eight colours as xterm and as GNOME's terminal show them, red, green, blue.
    const XTERM: [[u8; 3]; 8] = [
        [0, 0, 0],
        [205, 0, 0],
        [0, 205, 0],
        [205, 205, 0],
        [0, 0, 238],
        [205, 0, 205],
        [0, 205, 205],
        [229, 229, 229],
    ];
    const TANGO: [[u8; 3]; 8] = [
        [46, 52, 54],
        [204, 0, 0],
        [78, 154, 6],
        [196, 160, 0],
        [52, 101, 164],
        [117, 80, 123],
        [6, 152, 154],
        [211, 215, 207],
    ];

    /// Relative luminance by WCAG 2.1.
    fn luminance(colour: [u8; 3]) -> f64 {
        let [red, green, blue] = colour.map(|part| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    fn contrast(one: [u8; 3], other: [u8; 3]) -> f64 {
        let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
        (one / other).max(other / one)
    }

    #[test]
    fn every_colour_is_legible_on_black_and_on_white() {
        let legible = |colour: AnsiColor| {
            [XTERM, TANGO].iter().all(|palette| {
                let colour = palette[colour as usize];
                [[0; 3], [255; 3]].iter().all(|ground| contrast(colour, *ground) >= 3.0)
            })
        };
        assert!(!legible(AnsiColor::Yellow) && !legible(AnsiColor::Cyan));
        for style in [STRONG, WEAK, ALARM, CAUTION] {
            match style.get_fg_color() {
                None => {}
                Some(Color::Ansi(colour)) => assert!(legible(colour), "{colour:?}"),
                Some(other) => panic!("not a colour that every terminal has: {other:?}"),
            }
            assert_eq!(style.get_bg_color(), None);
        }
    }
}
