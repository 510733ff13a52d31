//! Files that cannot be read as text, and two files of one name.

use std::path::PathBuf;

use crate::config::{FILE_BYTES_MAX, load_all, load_each};

/// What loading one file says, the folder left out.
fn says(name: &str, bytes: Option<&[u8]>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    if let Some(bytes) = bytes {
        std::fs::write(&file, bytes).unwrap();
    }
    let problems = load_all(&[file]).unwrap_err();
    let said = problems.first().unwrap().to_string();
    said.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn what_is_not_a_text_file() {
    assert_eq!(
        says("no.yaml", None),
        "no.yaml: cannot be read: no such file or directory; check the path"
    );
    assert_eq!(says("", None), ": is a directory; name the files: pipeline/*.yaml".trim_start());
    assert_eq!(
        says("latin1.yaml", Some(b"pipeline: a\nviews: \xe9\n")),
        "latin1.yaml: is not UTF-8 text (line 2); save it as UTF-8"
    );
    assert_eq!(
        says("empty.yaml", Some(b"")),
        "empty.yaml: holds nothing; begin with pipeline: NAME"
    );
    let large = vec![b' '; usize::try_from(FILE_BYTES_MAX).unwrap() + 1];
    assert_eq!(
        says("large.yaml", Some(&large)),
        "large.yaml: is larger than 1048576 bytes; split it"
    );
}

#[test]
fn two_files_of_one_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let text = "pipeline: a\nsource: { url: \"${U}\" }\nstores: { redis: { url: \"${R}\" } }\nviews:\n  \
                - name: v\n    sql: |\n      SELECT id FROM t\n    to: [ { redis: { hash: \"v:{id}\" } } ]\n";
    let files: Vec<PathBuf> = ["a.yaml", "b.yaml"].map(|name| folder.path().join(name)).into();
    for file in &files {
        std::fs::write(file, text).unwrap();
    }
    let results = load_each(&files);
    assert!(results.first().unwrap().is_ok());
    let said = results.get(1).unwrap().as_ref().unwrap_err().to_string();
    assert!(said.contains("pipeline \"a\" is also in"), "{said}");
}
