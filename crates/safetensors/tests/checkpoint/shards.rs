//! Folders of shards with an index.

use crate::support::{Scratch, Tensor, compress, dense, file, kmeans, names, tensors};
use palettizer_palette::Nbits;
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_safetensors::{Checkpoint, Error};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

const INDEX: &str = "model.safetensors.index.json";

/// Writes a folder of shards, each with some of the tensors.
fn folder(scratch: &Scratch, shards: &[(&str, &[Tensor])]) -> PathBuf {
    let mut map = Map::new();
    for (name, tensors) in shards {
        scratch.write(&format!("in/{name}"), file(tensors, &[("format", "pt")]));
        for tensor in *tensors {
            map.insert(tensor.0.clone(), json!(name));
        }
    }
    let index = json!({"metadata": {"total_size": 1, "more": [2]}, "weight_map": map});
    scratch.write(&format!("in/{INDEX}"), index.to_string());
    scratch.path("in")
}

#[test]
fn shards_keep_their_names_and_the_index_follows() {
    let scratch = Scratch::new();
    let all = tensors();
    let (first, second) = all.split_at(2);
    let shards = [
        ("model-1.safetensors", first),
        ("model-2.safetensors", second),
    ];
    let path = folder(&scratch, &shards);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let outcome = compress(&checkpoint, &kmeans(Nbits::B4), &scratch.path("out")).unwrap();
    assert_eq!(outcome.weights.len(), all.len());
    let files = [INDEX, "model-1.safetensors", "model-2.safetensors"];
    let mut sorted = files;
    sorted.sort_unstable();
    assert_eq!(names(&scratch.path("out")), sorted);

    let index: Value = serde_json::from_slice(&scratch.read(&format!("out/{INDEX}"))).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    assert_eq!(map["fc1.weight.palette.indices"], "model-1.safetensors");
    assert_eq!(map["fc2.weight.palette.lut"], "model-2.safetensors");
    assert_eq!(map["steps"], "model-2.safetensors");
    assert!(!map.contains_key("fc1.weight"));
    assert_eq!(index["metadata"]["more"], json!([2]));
    let bytes: u64 = outcome.weights.iter().map(|row| row.bytes_after()).sum();
    assert_eq!(index["metadata"]["total_size"], bytes);

    // The index opens what the folder opens, and what comes back is dense.
    let small = Checkpoint::open(scratch.path(&format!("out/{INDEX}"))).unwrap();
    assert_eq!(small.names().len(), all.len());
    small
        .decompress_to(scratch.path("dense"), SaveOptions::overwriting(false), &())
        .unwrap();
    let back = Checkpoint::open(scratch.path("dense")).unwrap();
    for (name, _, _, bytes) in &all {
        assert_eq!(dense(&back, name), dense(&small, name), "{name}");
        assert_eq!(dense(&back, name).len(), bytes.len(), "{name}");
    }
    assert_eq!(dense(&back, "fc1.bias"), all[1].3);
}

#[test]
fn a_folder_with_other_things_is_not_replaced() {
    let scratch = Scratch::new();
    let path = folder(&scratch, &[("a.safetensors", &tensors())]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let table = [
        ("out.safetensors", "expected the name of a folder"),
        ("out.mlpackage", "expected the name of a folder"),
        ("file", "this is no folder"),
        ("other", "also holds config.json"),
    ];
    scratch.write("file", "precious");
    scratch.write("other/config.json", "precious");
    for (name, message) in table {
        let done = checkpoint.palettize_to(
            &kmeans(Nbits::B4),
            scratch.path(name),
            SaveOptions::overwriting(true),
            &(),
        );
        let error = done.unwrap_err().to_string();
        assert!(error.contains(message), "{name}: {error}");
    }
    // An empty folder and a checkpoint are replaced, the input among them.
    std::fs::create_dir(scratch.path("empty")).unwrap();
    for name in ["empty", "empty", "in"] {
        let config = kmeans(Nbits::B4);
        checkpoint
            .palettize_to(
                &config,
                scratch.path(name),
                SaveOptions::overwriting(true),
                &(),
            )
            .unwrap();
        assert_eq!(names(&scratch.path(name)), ["a.safetensors", INDEX]);
    }
}

#[test]
fn damaged_indices_are_refused() {
    let all = tensors();
    let map = |edit: &dyn Fn(&mut Map<String, Value>)| {
        let pairs = all
            .iter()
            .map(|tensor| (tensor.0.clone(), json!("a.safetensors")));
        let mut map: Map<String, Value> = pairs.collect();
        edit(&mut map);
        json!({ "weight_map": map }).to_string()
    };
    let put = |name: &'static str, file: &'static str| {
        map(&move |map| {
            map.insert(name.to_owned(), json!(file));
        })
    };
    let table: Vec<(&str, String, &str)> = vec![
        ("no JSON", "{".to_owned(), "EOF"),
        ("a list", "[]".to_owned(), "invalid"),
        ("no map", "{}".to_owned(), "missing field `weight_map`"),
        (
            "a number for a file",
            json!({"weight_map": {"a": 1}}).to_string(),
            "expected a string",
        ),
        (
            "up",
            put("steps", "../a.safetensors"),
            "must lie beside the index",
        ),
        (
            "absolute",
            put("steps", "/a.safetensors"),
            "must lie beside the index",
        ),
        (
            "in a folder",
            put("steps", "b/a.safetensors"),
            "must lie beside the index",
        ),
        ("itself", put("steps", "."), "must lie beside the index"),
        ("no name", put("steps", ""), "must lie beside the index"),
        (
            "backslash",
            put("steps", "b\\a.safetensors"),
            "must lie beside the index",
        ),
        (
            "no such shard",
            put("steps", "b.safetensors"),
            "there is no shard \"b.safetensors\"",
        ),
        (
            "no such tensor",
            put("more", "a.safetensors"),
            "which has none",
        ),
        (
            "a tensor too few",
            map(&|map| drop(map.remove("steps"))),
            "tensor \"steps\" of \"a.safetensors\" is not in weight_map",
        ),
        (
            "another shard",
            put("steps", "c.safetensors"),
            "but weight_map says \"c.safetensors\"",
        ),
        (
            "a tensor twice",
            format!(
                "{{\"weight_map\": {{{0}, {0}}}}}",
                "\"x\": \"a.safetensors\""
            ),
            "\"x\" is there twice",
        ),
    ];
    for (what, index, message) in table {
        let scratch = Scratch::new();
        scratch.write("a.safetensors", file(&all, &[]));
        scratch.write("c.safetensors", file(&[], &[]));
        let path = scratch.write(INDEX, index);
        let error = Checkpoint::open(&path).unwrap_err();
        assert!(matches!(error, Error::Index { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains(message), "{what}: {error}");
    }
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let scratch = Scratch::new();
    scratch.write("empty/note", "");
    scratch.write(&format!("two/a{INDEX}"), "");
    scratch.write(&format!("two/b{INDEX}"), "");
    scratch.write("model.bin", "");
    std::fs::create_dir(scratch.path("folder.safetensors.index.json")).unwrap();
    let table = [
        ("empty", "no index of shards"),
        ("two", "2 indices of shards: give one of them"),
        ("model.bin", "expected a name that ends in .safetensors"),
        ("none.safetensors", "No such file"),
        ("folder.safetensors.index.json", "no index of shards"),
    ];
    for (name, message) in table {
        let error = Checkpoint::open(scratch.path(name))
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{name}: {error}");
    }
}
