//! Compressed recordings, made by the real programs: see `fixtures/replay/compressed/regenerate.sh`.

use std::{
    io::{self, BufReader, Cursor, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use dropwatch::{
    command::replay::{MAX_LINE, ReplayError, replay},
    recording::decompressed,
    render::{Format, Json},
    report::{
        decode::decode,
        model::{Line, Location, Place},
        summary::Summing,
        view::View,
    },
};
use flate2::{Compression, write::GzEncoder};
use proptest::{collection::vec, prelude::*};
use testbed::folder::Folder;

use crate::support::again;

const PLAIN: &[u8] = include_bytes!("../fixtures/replay/v1.ndjson");
const GZIP: &[u8] = include_bytes!("../fixtures/replay/compressed/gzip");
const ZSTD: &[u8] = include_bytes!("../fixtures/replay/compressed/zstd");
const GZIP_MEMBERS: &[u8] = include_bytes!("../fixtures/replay/compressed/gzip-members");
const ZSTD_FRAMES: &[u8] = include_bytes!("../fixtures/replay/compressed/zstd-frames");
const GZIP_THEN_TEXT: &[u8] = include_bytes!("../fixtures/replay/compressed/gzip-then-text");
const GZIP_LONG: &[u8] = include_bytes!("../fixtures/replay/compressed/gzip-long");
const ZSTD_LONG: &[u8] = include_bytes!("../fixtures/replay/compressed/zstd-long");
/// How often the recording is in the long ones.
const REPEATS: usize = 600;

/// What `replay` makes of these bytes, as JSON, and its error.
fn replayed(bytes: impl Into<Vec<u8>>) -> (String, Option<String>) {
    let mut out = Vec::new();
    let recording = decompressed(Box::new(Cursor::new(bytes.into())));
    let ended = replay(recording, &View::default(), &Json, &mut out);
    (String::from_utf8(out).unwrap(), ended.err().map(|error| error.to_string()))
}

fn plain() -> String {
    String::from_utf8(PLAIN.to_vec()).unwrap()
}

/// Bytes that come as slowly as through a pipe: no read gives more than one.
struct Dripping(Cursor<Vec<u8>>);

impl Read for Dripping {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let one = into.len().min(1);
        self.0.read(&mut into[..one])
    }
}

#[test]
fn what_the_programs_compress_is_read() {
    for (name, bytes) in [
        ("text", PLAIN),
        ("gzip", GZIP),
        ("zstd", ZSTD),
        ("gzip-members", GZIP_MEMBERS),
        ("zstd-frames", ZSTD_FRAMES),
        ("gzip-then-text", GZIP_THEN_TEXT),
    ] {
        assert_eq!(replayed(bytes), (plain(), None), "{name}");
        let slow = BufReader::new(Dripping(Cursor::new(bytes.to_vec())));
        let mut text = String::new();
        decompressed(Box::new(slow)).read_to_string(&mut text).unwrap();
        assert_eq!(text, plain(), "{name}, byte by byte");
    }
    // One behind the other, of both kinds.
    let joined = [GZIP, ZSTD_FRAMES, GZIP_MEMBERS, ZSTD, PLAIN].concat();
    assert_eq!(replayed(joined), (plain().repeat(5), None));
    for long in [GZIP_LONG, ZSTD_LONG] {
        let (text, error) = replayed(long);
        assert_eq!((text == plain().repeat(REPEATS), error), (true, None));
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_recording() {
    let marked = [&b"\xef\xbb\xbf"[..], PLAIN].concat();
    assert_eq!(replayed(marked), (plain(), None));
}

#[test]
fn wherever_an_archive_is_cut_what_came_before_is_read() {
    let plain = plain();
    for (format, archive) in [("gzip", GZIP), ("zstd", ZSTD), ("zstd", ZSTD_FRAMES)] {
        for end in 4..archive.len() {
            let (text, error) = replayed(&archive[..end]);
            assert!(plain.starts_with(&text), "cut at {end}");
            let Some(error) = error else { panic!("{format} cut at {end} was accepted") };
            let line = text.lines().count() + 1;
            let printed = |format| {
                format!(
                    "cannot read line {line}: the {format} data ends in the middle: \
                     the recording was cut off there"
                )
            };
            // Of a line whose rest is in the next frame, if that is cut off as a whole.
            let text = format!("line {line} ends in the middle: the recording was cut off there");
            let expected = [printed(format), printed("compressed"), text];
            assert!(expected.contains(&error), "cut at {end}: {error}");
        }
    }
    // All lines but those of the last block or so, which cannot be decoded.
    for (archive, lost) in [(GZIP_LONG, 200), (ZSTD_LONG, 270)] {
        let end = archive.len() - 12;
        let (text, error) = replayed(&archive[..end]);
        assert!(plain.repeat(REPEATS).starts_with(&text));
        let all = plain.lines().count() * REPEATS;
        assert!(text.lines().count() > all - lost, "{} of {all}", text.lines().count());
        assert!(error.unwrap().ends_with("the recording was cut off there"));
    }
}

#[test]
fn damage_is_told() {
    for (format, archive) in [("gzip", GZIP), ("zstd", ZSTD)] {
        let mut refused = 0;
        for at in 4..archive.len() {
            let mut damaged = archive.to_vec();
            damaged[at] ^= 0x10;
            let (_, error) = replayed(damaged);
            refused += usize::from(error.is_some());
        }
        // All but a few bits of the headers, which say when and by what it was made.
        assert!(refused + 12 >= archive.len() - 4, "{format}: {refused} of {}", archive.len());
        // The checksum is the last to tell.
        let mut damaged = archive.to_vec();
        let last = damaged.len() - if format == "gzip" { 8 } else { 4 };
        damaged[last] ^= 1;
        let (text, error) = replayed(damaged);
        assert_eq!(text, plain(), "{format}");
        let error = error.unwrap();
        let line = plain().lines().count() + 1;
        let begin = format!("cannot read line {line}: the {format} data is damaged");
        assert!(error.starts_with(&begin), "{error}");
    }
    let (text, error) = replayed([GZIP, b"rubbish\n"].concat());
    assert_eq!(text, plain());
    assert!(error.unwrap().contains("is not JSON"));
}

#[test]
fn other_compressions_are_named() {
    let (_, error) = replayed(&include_bytes!("../fixtures/replay/compressed/xz")[..]);
    assert_eq!(
        error.unwrap(),
        "cannot read line 1: it is compressed by xz, which is not read here: \
         `xz -dc FILE | dropwatch replay -`"
    );
    let (_, error) = replayed(&b"BZh91AY&SY"[..]);
    assert!(error.unwrap().contains("`bzip2 -dc FILE | dropwatch replay -`"));
}

#[test]
fn an_archive_of_nothing_is_empty() {
    let gzip = GzEncoder::new(Vec::new(), Compression::fast()).finish().unwrap();
    for bytes in [gzip, b"\x1f".to_vec(), Vec::new()] {
        let (text, error) = replayed(bytes);
        assert_eq!(text, "");
        assert!(error.is_some());
    }
}

/// A frame that says nothing but one byte over and over: 128 KiB in every four bytes.
struct Bomb {
    byte: u8,
    given: usize,
    most: usize,
}

impl Bomb {
    fn new(byte: u8, most: usize) -> BufReader<Self> {
        BufReader::with_capacity(64, Self { byte, given: 0, most })
    }
}

impl Read for Bomb {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // Magic, a descriptor without size or checksum, a window of 128 KiB; then blocks of type 1.
        let head = [0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
        let block = (128 << 10 << 3) | 1 << 1;
        let block = [block as u8, (block >> 8) as u8, (block >> 16) as u8, self.byte];
        for byte in into.iter_mut() {
            *byte = match self.given.checked_sub(head.len()) {
                None => head[self.given],
                Some(n) => block[n % block.len()],
            };
            self.given += 1;
        }
        assert!(self.given < self.most, "reads on and on");
        Ok(into.len())
    }
}

#[test]
fn a_small_archive_of_an_endless_line_is_refused() {
    // 128 blocks are the longest line.
    let bomb = decompressed(Box::new(Bomb::new(b'{', 2_000)));
    let result = replay(bomb, &View::default(), &Json, &mut io::sink());
    assert!(matches!(result, Err(ReplayError::TooLong { line: 1 })), "{result:?}");

    // Nor is one of lines without end that say nothing.
    let bomb = decompressed(Box::new(Bomb::new(b'\n', 2_000)));
    let result = replay(bomb, &View::default(), &Json, &mut io::sink());
    assert_eq!(
        result.unwrap_err().to_string(),
        "16777216 bytes of blank lines end at line 16777217: not a dropwatch recording"
    );

    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..4 * (MAX_LINE >> 20) {
        gzip.write_all(&[b'{'; 1 << 20]).unwrap();
    }
    let gzip = gzip.finish().unwrap();
    assert!(gzip.len() < 80_000);
    let (_, error) = replayed(gzip);
    assert!(error.unwrap().starts_with("line 1 is longer than"));
}

#[test]
fn a_window_that_no_memory_holds_is_refused() {
    // A window of 2^41 bytes, as the format allows.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 31 << 3, 1, 0, 0];
    let (_, error) = replayed(&frame[..]);
    let error = error.unwrap();
    assert!(error.contains("the zstd data is damaged or not supported"), "{error}");
    assert!(error.contains("window"), "{error}");
}

proptest! {
    #[test]
    fn nothing_panics(begin in 0..4_usize, bytes in vec(any::<u8>(), 0..200), at in 0..700_usize) {
        let head: &[u8] = [&[][..], &[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd], &ZSTD[..40]][begin];
        let _ended = replayed([head, &bytes].concat());
        let mut damaged = ZSTD.to_vec();
        let at = at % damaged.len();
        for (to, from) in damaged[at..].iter_mut().zip(&bytes) {
            *to = *from;
        }
        let _ended = replayed(damaged);
    }
}

/// A small archive may name many places with long names: what finds no room is summed.
#[test]
fn names_without_end_are_summed() {
    let mut summing = Summing::default();
    let Line::Report(mut report) = decode(plain().lines().nth(1).unwrap()).unwrap() else {
        panic!("no report")
    };
    let row = report.locations[0].clone();
    report.locations.clear();
    let mut bytes = 0;
    for n in 0..40_000 {
        let symbol = format!("{n:04096}");
        bytes += symbol.len();
        let place = Place { symbol: Some(symbol), ..row.place.clone() };
        report.locations.push(Location { place, count: 1, ..row.clone() });
        if n % 1_000 == 999 {
            report.drops = 1_000;
            summing.add(&report);
            report.locations.clear();
        }
    }
    let summary = summing.summary();
    let kept: usize =
        summary.locations.iter().flat_map(|row| &row.place.symbol).map(String::len).sum();
    assert!(bytes > 150 << 20 && kept <= 64 << 20, "{kept} of {bytes}");
    let listed: u64 = summary.locations.iter().map(|row| row.count).sum();
    assert_eq!((summary.drops, listed + summary.other), (40_000, 40_000));
}

/// A file of `folder` whose name says nothing of what it holds.
fn file(folder: &Folder, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.file(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn dropwatch() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dropwatch"));
    command.env("TZ", "UTC").stdin(Stdio::null());
    command
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// What the program shows of the recording, without its file's name.
fn shown(arguments: &[&Path]) -> String {
    let output = dropwatch().arg("replay").args(arguments).output().unwrap();
    let (shown, printed) = text(&output);
    assert!(output.status.success(), "{printed}");
    shown
}

#[test]
fn the_program_reads_them_by_their_content() {
    let folder = Folder::new("compressed-content").unwrap();
    let expected = again(PLAIN, Format::Text, &Format::Text.view(Some(10), false)).0;
    // Names that lie.
    for (name, bytes) in [("a.zst", GZIP), ("b.ndjson", ZSTD), ("c.gz", PLAIN)] {
        let path = file(&folder, name, bytes);
        assert_eq!(shown(&[&path]), expected, "{name}");
        let file = std::fs::File::open(&path).unwrap();
        let output = dropwatch().args(["replay", "-"]).stdin(file).output().unwrap();
        assert_eq!(text(&output), (expected.clone(), String::new()), "{name} from standard input");
    }
    // Through a pipe, and one of them only in part.
    let mut child = dropwatch()
        .args(["replay", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&[GZIP, &ZSTD[..600]].concat()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (shown, printed) = text(&output);
    assert!(shown.starts_with(&expected), "{shown}");
    assert!(
        printed.contains("cannot replay -: cannot read line 5: the zstd data ends"),
        "{printed}"
    );
}

#[test]
fn comparisons_and_metrics_read_them_too() {
    let folder = Folder::new("compressed-others").unwrap();
    let (gzip, zstd) = (file(&folder, "before", GZIP), file(&folder, "after", ZSTD_FRAMES));
    let compared = shown(&[Path::new("--diff"), &gzip, &zstd]);
    let sides: Vec<&str> = compared.lines().take(2).collect();
    assert!(sides[0].contains("10713 drops") && sides[1].contains("10713 drops"), "{compared}");

    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut served = dropwatch()
        .args(["replay", "--metrics", &address.to_string()])
        .arg(&zstd)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let get = || -> io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    };
    // All of them, 5.4 seconds after the first.
    let whole = |page: &String| page.contains("dropwatch_reports_total 2\n");
    while !get().is_ok_and(|page| whole(&page)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let page = get();
    served.kill().unwrap();
    served.wait().unwrap();
    let page = page.unwrap();
    assert!(whole(&page) && page.contains("reason=\"NETFILTER_DROP\""), "{page}");
}
