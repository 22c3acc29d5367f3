//! The published JSON Schema, the documentation's examples and the emitted lines are one contract.

use std::sync::LazyLock;

use dropwatch::{
    render::Format,
    report::{
        keys::{Choice, Keys},
        model::groups::By,
        model::{Lost, UndecidedBy},
        options::Options,
        view::View,
    },
};
use dropwatch_common::filter::Group;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::support::{again, run, show, snapshot};

const SCHEMA: &str = include_str!("../../../docs/report.schema.json");
const PAGE: &str = include_str!("../../../docs/json.md");

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
});

/// Panics unless every line is a valid line of the schema.
pub(crate) fn assert_valid(recording: &str) {
    for line in recording.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        if let Err(error) = VALIDATOR.validate(&value) {
            panic!("{error} at {} in {line}", error.instance_path());
        }
        assert!(line.starts_with(r#"{"v":1,"type":""#), "{line}");
    }
}

fn lines(options: Options) -> String {
    let lost = Lost { recursion: 3, ..Default::default() };
    let snapshots = [(snapshot(5000, &[(0, 2, 10), (1, 1, 5), (99, u32::MAX, 1)], lost), 1)];
    show(&run(options, &["a notice"], &snapshots), Format::Json)
}

#[test]
fn every_kind_of_line_is_valid() {
    for addresses in [false, true] {
        let recording = lines(Options { addresses, stacks: false, ..Options::default() });
        assert_eq!(recording.lines().count(), 3);
        assert_eq!(recording.contains("\"address\""), addresses);
        assert_valid(&recording);
    }
}

#[test]
fn filters_and_groups_are_valid_and_come_back() {
    let keys = Keys { symbols: vec![Choice::function("*").unwrap()], ..Keys::default() };
    let by = By::ALL.to_vec();
    let options = Options { keys, by, packets_filtered: true, ..Options::default() };
    let lost = Lost { recursion: 3, ..Lost::default() };
    let mut taken = snapshot(5000, &[(0, 2, 10)], lost);
    let group = Group { known: 1, direction: 2, netns: 7, ifindex: 2, network: 0, transport: 6 };
    taken.counters.groups = [((group, Some(1)), 9), ((Group::default(), Some(0)), 1)].into();
    taken.counters.undecided =
        UndecidedBy { tcp_flags: 3, expression: 1, ..UndecidedBy::default() };
    taken.counters.ungrouped = 2;
    let recording = show(&run(options, &[], &[(taken, 1)]), Format::Json);
    assert_valid(&recording);
    let report: Value = serde_json::from_str(recording.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&report["filter_undecided"], &report["groups"]["drops"]), (&json!(7), &json!(12)));
    assert_eq!(report["filter_undecided_by"], json!({"tcp_flags": 3, "expression": 1}));
    assert_eq!(report["groups"]["rows"][0]["protocol"], "tcp");
    assert_eq!(report["groups"]["rows"][0]["direction"], "out");
    let (back, ended) = again(recording.as_bytes(), Format::Json, &View::default());
    ended.unwrap();
    assert_eq!(back, recording);
}

#[test]
fn the_schema_refuses_what_is_not_ours() {
    let recording = lines(Options::default());
    let report: Value = serde_json::from_str(recording.lines().nth(1).unwrap()).unwrap();
    assert!(VALIDATOR.is_valid(&report));
    for (pointer, wrong) in [
        ("/v", json!(2)),
        ("/type", json!("sample")),
        ("/seq", json!(0)),
        ("/end", json!("2026-11-22T07:35:10Z")),
        ("/drops", json!(-1)),
        ("/rate", json!(null)),
        ("/other", json!({})),
        ("/lost/recursion", json!("3")),
        ("/locations/0/share", json!(1.5)),
        ("/locations/0/count", json!(0)),
        ("/locations/0/reason", json!("")),
        ("/locations/0", json!({"symbol": "f"})),
    ] {
        let mut line = report.clone();
        *line.pointer_mut(pointer).unwrap() = wrong;
        assert!(!VALIDATOR.is_valid(&line), "{pointer} was accepted in {line}");
    }
    for pointer in ["", "/lost", "/other", "/locations/0"] {
        let mut line = report.clone();
        line.pointer_mut(pointer).unwrap()["surprise"] = json!(1);
        assert!(!VALIDATOR.is_valid(&line), "an unknown field in {pointer:?} was accepted");
    }
}

#[test]
fn the_documentation_shows_real_lines() {
    let (runs, _) = PAGE.split_once("\n# `dropwatch conntrack").expect("lines of a run come first");
    let examples: String = runs
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(|example| {
            let value: Value = serde_json::from_str(example).unwrap();
            format!("{}\n", serde_json::to_string(&value).unwrap())
        })
        .collect();
    assert_eq!(examples.lines().count(), 4, "start, report, sample and end");
    for line in examples.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        if let Err(error) = VALIDATOR.validate(&value) {
            panic!("{error} at {} in {line}", error.instance_path());
        }
    }
    let (_, result) = again(examples.as_bytes(), Format::Text, &Format::Text.view(None, false));
    result.unwrap();
}

#[test]
fn the_documentation_names_every_field() {
    fn names<'a>(schema: &'a Value, into: &mut Vec<&'a str>) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            into.extend(properties.keys().map(String::as_str));
        }
        match schema {
            Value::Object(fields) => fields.values().for_each(|field| names(field, into)),
            Value::Array(items) => items.iter().for_each(|item| names(item, into)),
            _ => {}
        }
    }
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let mut fields = Vec::new();
    names(&schema, &mut fields);
    assert!(fields.len() > 30, "{fields:?}");
    for field in fields {
        assert!(PAGE.contains(&format!("`{field}`")), "docs/json.md does not describe {field}");
    }
}
