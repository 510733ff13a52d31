//! The pipelines that we ship, and the schema that editors complete from.

use serde_json::Value;

use super::{root, says, yaml_files};
use crate::config::Pipeline;
use crate::config::raw::{Keys, ROOT, SOURCE, STORE, VIEW};
use crate::config::target::{CLICKHOUSE, REDIS};

#[test]
fn the_pipelines_that_we_ship_are_right() {
    for file in yaml_files(&root().join("pipeline")) {
        if let Err(problems) = Pipeline::load(&file) {
            panic!("{problems}");
        }
    }
}

/// The schema names exactly the keys that the code accepts.
#[test]
fn the_schema_has_the_keys_of_the_code() {
    let file = root().join("schemas/pipeline.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let parts: [(&str, &Keys); 6] = [
        ("/properties", &ROOT),
        ("/$defs/source/properties", &SOURCE),
        ("/$defs/store/properties", &STORE),
        ("/$defs/view/properties", &VIEW),
        ("/$defs/redis/properties", &REDIS),
        ("/$defs/clickhouse/properties", &CLICKHOUSE),
    ];
    for (pointer, keys) in parts {
        let properties = schema.pointer(pointer).and_then(Value::as_object).unwrap();
        let mut in_schema: Vec<&str> = properties.keys().map(String::as_str).collect();
        let mut in_code = keys.known.to_vec();
        in_schema.sort_unstable();
        in_code.sort_unstable();
        assert_eq!(in_schema, in_code, "{pointer}");
        let parent = schema.pointer(pointer.trim_end_matches("/properties")).unwrap();
        assert_eq!(parent.get("additionalProperties"), Some(&Value::Bool(false)), "{pointer}");
    }
}

#[test]
fn a_bomb_of_aliases_is_refused_at_once() {
    let mut text = "a0: &a0 [x, x, x]\n".to_owned();
    for level in 1..40 {
        let before = level - 1;
        text.push_str(&format!("a{level}: &a{level} [*a{before}, *a{before}, *a{before}]\n"));
    }
    assert!(says(&text).contains("a YAML alias (*name) is not accepted"));
    assert!(says(&"[".repeat(100_000)).contains("nested deeper than"));
    assert!(says(&"a: ".repeat(1_000)).contains("not YAML"));
    assert!(says(&"- ".repeat(50_000)).contains("nested deeper than"));
}
