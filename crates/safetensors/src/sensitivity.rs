//! Sensitivities and statistics in a safetensors file: tensors by name.

use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::element::ElementType;
use crate::header::Entry;
use crate::shard::Shard;
use half::{bf16, f16};
use palettizer_pipeline::SensitivitySource;
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of a tensor that are read before their memory is given back.
const STRETCH: usize = 1 << 20;

/// The tensors of a safetensors file, or of a folder of them, as sensitivities. They may be of type F16, BF16, F32 or
/// F64; others are not listed. They stay in the file until they are needed. It serves for [`Statistics`](palettizer_pipeline::Statistics) too.
///
/// ```
/// use palettizer_pipeline::SensitivitySource;
/// use palettizer_pipeline::staged_output::SaveOptions;
/// use palettizer_safetensors::{Checkpoint, Content, DenseTensor, ElementType, SafetensorsSensitivities};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("sensitivities.safetensors");
/// let bytes: Vec<u8> = [1.0_f32, 0.5].iter().flat_map(|value| value.to_le_bytes()).collect();
/// let tensor = DenseTensor::new(ElementType::F32, vec![1, 2], &bytes);
/// Checkpoint::write(&path, &[("fc.weight", Content::Dense(tensor))], &Default::default(), SaveOptions::default())?;
///
/// let sensitivities = SafetensorsSensitivities::open(&path)?;
/// assert_eq!(sensitivities.shape("fc.weight"), Some(vec![1, 2]));
/// assert_eq!(sensitivities.read("fc.weight")?, [1.0, 0.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SafetensorsSensitivities(Checkpoint);

impl SafetensorsSensitivities {
    /// Opens a `.safetensors` file, a folder of shards, or its index.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Checkpoint::open(path).map(Self)
    }

    /// A tensor of real numbers, with the shard that it is in, and how it is read.
    fn tensor(&self, name: &str) -> Option<(&Shard, &Entry, (usize, Widen))> {
        let opened = &self.0.0;
        let item = opened.item(name)?;
        let entry = opened.entry(item)?;
        Some((&opened.shards[item.shard], entry, reader(entry.element)?))
    }
}

impl SensitivitySource for SafetensorsSensitivities {
    fn names(&self) -> Vec<String> {
        let names = self.0.names().into_iter();
        names
            .filter(|name| self.shape(name).is_some())
            .map(str::to_owned)
            .collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensor(name).map(|(_, entry, _)| entry.shape.clone())
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let shards = self.0.0.shards.iter();
        let all = shards.flat_map(|shard| &shard.header.metadata);
        all.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, String> {
        let unknown = || format!("there is no tensor of numbers called \"{name}\"");
        let (shard, entry, (size, widen)) = self.tensor(name).ok_or_else(unknown)?;
        let mut values: Vec<f32> = Vec::new();
        let room = values.try_reserve_exact(entry.elements());
        room.map_err(|error| format!("{} values: {error}", entry.elements()))?;
        let mut start = entry.range.start;
        for stretch in shard.data(entry).chunks(STRETCH) {
            values.extend(stretch.chunks_exact(size).map(widen));
            shard.bytes.release(start..start + stretch.len());
            start += stretch.len();
        }
        let unchanged = shard.bytes.unchanged();
        unchanged
            .map(|()| values)
            .map_err(|error| error.to_string())
    }
}

/// How an element becomes an `f32`.
type Widen = fn(&[u8]) -> f32;

/// Bytes of an element, and how it becomes an `f32`; `None` for types of other than real numbers.
fn reader(element: ElementType) -> Option<(usize, Widen)> {
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        // The slice is one of N bytes.
        bytes.try_into().unwrap_or([0; N])
    }
    Some(match element {
        ElementType::F16 => (2, |bytes| f16::from_le_bytes(array(bytes)).to_f32()),
        ElementType::BF16 => (2, |bytes| bf16::from_le_bytes(array(bytes)).to_f32()),
        ElementType::F32 => (4, |bytes| f32::from_le_bytes(array(bytes))),
        ElementType::F64 => (8, |bytes| f64::from_le_bytes(array(bytes)) as f32),
        _ => return None,
    })
}
