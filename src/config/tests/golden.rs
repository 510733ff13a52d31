//! Each `golden/NAME.yaml` against what `check` says of it, in `golden/NAME.txt`.
//!
//! After a wanted change: `WALVIEW_GOLDEN=write cargo test -p walview golden`, then read the diff.

use super::{root, yaml_files};
use crate::config::{Environment, Pipeline};

#[test]
fn check_says_what_the_golden_files_say() {
    let write = Environment::Process.get("WALVIEW_GOLDEN").is_ok_and(|word| word == "write");
    let mut different = Vec::new();
    for file in yaml_files(&root().join("src/config/tests/golden")) {
        let name = file.file_name().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let said = match Pipeline::parse(name.as_ref(), text) {
            Ok(pipeline) => {
                let views: Vec<String> =
                    (pipeline.views.iter()).map(|view| pipeline.canonical_view(view)).collect();
                format!("ok\n{}", views.concat())
            }
            Err(problems) => problems.with_excerpts(),
        };
        assert!(!said.contains("hunter2"), "{}: a secret is shown:\n{said}", file.display());
        let expected = file.with_extension("txt");
        if write {
            std::fs::write(&expected, &said).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != said {
            different.push(format!("--- {} now gives:\n{said}", expected.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
