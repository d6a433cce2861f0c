//! What a file is that is no model of ours, and what to do with it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The bytes of a file that are looked at: the header of a zip's first entry, and its name.
const HEAD: u64 = 128;

const PYTORCH: &str = "this is a PyTorch file: load it in Python and palettize the module with palettizer.torch, \
                       convert it with coremltools.convert, or store its tensors with safetensors.torch.save_file";
const ARCHIVE: &str = "this is an archive: unpack it, and give the model inside";
const NUMPY: &str = "this is a NumPy file: store its arrays with safetensors.numpy.save_file";
const ONNX: &str = "this is an ONNX model: convert the model that it was exported from with coremltools.convert, \
                    or give its .safetensors checkpoint";
const GGUF: &str = "this is a GGUF file, quantized for llama.cpp already: give the .safetensors checkpoint that it \
                    was made from";
const COMPILED: &str =
    "this is a compiled model (.mlmodelc): give the .mlpackage that it was compiled from";
const TFLITE: &str = "this is a TensorFlow Lite model: convert the model that it was made from with coremltools.convert";
const TENSORFLOW: &str = "this is a TensorFlow model: convert it with coremltools.convert first";
const KERAS: &str =
    "this is a Keras file: load it in Python, and convert it with coremltools.convert first";
const FLAX: &str =
    "this is a Flax checkpoint: load it in Python, and store it with safetensors.flax.save_file";
const POINTER: &str = "this is a Git LFS pointer, not the file that it stands for: run git lfs pull, or download the file itself";

/// Extensions, in lower case, and what they are.
const EXTENSIONS: [(&[&str], &str); 10] = [
    (&["pt", "pth", "pt2", "ckpt", "pkl", "bin"], PYTORCH),
    (&["onnx"], ONNX),
    (&["gguf", "ggml"], GGUF),
    (&["mlmodelc"], COMPILED),
    (&["tflite"], TFLITE),
    (&["pb"], TENSORFLOW),
    (&["h5", "hdf5", "keras"], KERAS),
    (&["npz", "npy"], NUMPY),
    (&["msgpack"], FLAX),
    (&["zip", "tar", "gz", "tgz", "xz", "7z"], ARCHIVE),
];

/// Where in a file which bytes stand, and what it is then.
const MAGIC: [(usize, &[u8], &str); 8] = [
    (0, b"GGUF", GGUF),
    (0, b"\x89HDF", KERAS),
    (0, b"\x93NUMPY", NUMPY),
    (4, b"TFL3", TFLITE),
    (0, b"\x80\x02", PYTORCH),
    (0, b"\x80\x04", PYTORCH),
    (0, b"\x1f\x8b", ARCHIVE),
    (0, b"version https://git-lfs", POINTER),
];

/// What a file or folder is, and what to do with it, if it is something known: by its first bytes, else by its name. The
/// file has been found to be a regular one.
///
/// ```
/// use palettizer_pipeline::mapped_file::foreign;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("model.weights");
/// std::fs::write(&path, b"GGUF\x03\0\0\0")?;
/// assert!(foreign(&path).is_some_and(|what| what.starts_with("this is a GGUF file")));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn foreign(path: &Path) -> Option<&'static str> {
    by_content(path).or_else(|| by_name(path))
}

/// What a file is, by its first bytes.
pub fn by_content(path: &Path) -> Option<&'static str> {
    let mut head = Vec::new();
    File::open(path)
        .ok()?
        .take(HEAD)
        .read_to_end(&mut head)
        .ok()?;
    let magic = |(at, bytes, _): &&(usize, &[u8], &str)| {
        head.get(*at..).is_some_and(|rest| rest.starts_with(bytes))
    };
    if let Some((_, _, what)) = MAGIC.iter().find(magic) {
        return Some(what);
    }
    // Many formats are zip files. The name says which, or else the first file inside.
    if !head.starts_with(b"PK\x03\x04") {
        return None;
    }
    let pickle = head.windows(9).any(|bytes| bytes == b"/data.pkl");
    Some(match by_name(path) {
        _ if pickle => PYTORCH,
        Some(what) => what,
        None => ARCHIVE,
    })
}

/// What a file or folder is, by its name.
pub fn by_name(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_string_lossy().to_lowercase();
    let mut known = EXTENSIONS.iter();
    let (_, what) = known.find(|(extensions, _)| extensions.contains(&extension.as_str()))?;
    Some(what)
}

/// What a folder is, by what is in it.
pub fn folder(path: &Path) -> Option<&'static str> {
    let there = |name: &str| path.join(name).exists();
    if there("coremldata.bin") {
        return Some(COMPILED);
    }
    if there("saved_model.pb") {
        return Some(TENSORFLOW);
    }
    if there("pytorch_model.bin") || there("pytorch_model.bin.index.json") {
        return Some(
            "this checkpoint is stored as PyTorch files (.bin): store it as .safetensors, in Python with \
             model.save_pretrained(folder, safe_serialization=True)",
        );
    }
    by_name(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_bytes_then_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let table: [(&str, &[u8], Option<&str>); 14] = [
            ("a.pt", b"PK\x03\x04", Some(PYTORCH)),
            (
                "a.zip",
                b"PK\x03\x04..........................a/data.pkl",
                Some(PYTORCH),
            ),
            ("a.zip", b"PK\x03\x04", Some(ARCHIVE)),
            ("a.mlpackage.zip", b"PK\x03\x04", Some(ARCHIVE)),
            ("a.npz", b"PK\x03\x04", Some(NUMPY)),
            ("a", b"PK\x03\x04", Some(ARCHIVE)),
            ("pytorch_model.bin", b"\x80\x02c", Some(PYTORCH)),
            ("a.bin", b"GGUF", Some(GGUF)),
            ("a.h5", b"\x89HDF\r\n", Some(KERAS)),
            ("a.tflite", b"\x1c\0\0\0TFL3", Some(TFLITE)),
            ("a.ONNX", b"\x08\x07", Some(ONNX)),
            (
                "a.mlmodel",
                b"version https://git-lfs.github.com/spec/v1\n",
                Some(POINTER),
            ),
            ("a.mlmodel", b"\x08\x09", None),
            ("a", b"", None),
        ];
        for (name, bytes, expected) in table {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(foreign(&path), expected, "{name}");
        }
        assert_eq!(foreign(&folder.path().join("missing.onnx")), Some(ONNX));
    }
}
