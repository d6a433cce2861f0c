//! What palettes cost: the bytes of a checkpoint's files, known before they are written.
//!
//! A header is text, with the place of each tensor in it: the largest number that there can be is counted.

use crate::Error;
use crate::checkpoint::{Checkpoint, Kind, Opened};
use crate::compact::{FORMAT, Meta, Role, VERSION, WEIGHTS, foreign, parts};
use crate::element::ElementType;
use crate::header;
use crate::weights::Place;
use palettizer_palette::Palette;
use palettizer_pipeline::{Error as PipelineError, Plan};
use std::collections::{BTreeMap, HashSet};

/// Bytes by which a header may grow to a multiple of 8.
const PADDING: u64 = 7;

/// Bytes of a palette's tensors, of what the header says of them, and of what the metadata say of the weight. Files have
/// fewer than `most` bytes.
pub(crate) fn palette_bytes(weight: &str, palette: &Palette, most: u64) -> u64 {
    let parts = parts(palette);
    let tensors = parts.iter().map(|(role, element, shape, bytes)| {
        entry_bytes(&role.of(weight), *element, shape, most) + bytes.len() as u64
    });
    let meta = BTreeMap::from([(weight, Meta::from(palette))]);
    let meta = serde_json::to_string(&meta).unwrap_or_default();
    tensors.sum::<u64>() + in_text(&meta)
}

/// Bytes of a JSON object's members as a part of one in a string, with the comma behind them.
fn in_text(object: &str) -> u64 {
    let text = serde_json::to_string(object).unwrap_or_default();
    // without the quotes and the braces, with a comma
    (text.len() as u64).saturating_sub(4) + 1
}

/// Bytes of a tensor's entry in a header, with the comma behind it.
fn entry_bytes(name: &str, element: ElementType, shape: &[usize], most: u64) -> u64 {
    let name = serde_json::to_string(name).unwrap_or_default().len();
    let shape = serde_json::to_string(shape).unwrap_or_default().len();
    let offset = most.to_string().len();
    let rest = format!(
        ":{{\"dtype\":\"{}\",\"shape\":,\"data_offsets\":[,]}},",
        element.name()
    );
    (name + shape + 2 * offset + rest.len()) as u64
}

/// More bytes than any tensor has.
const MOST: u64 = 1 << 44;

impl Checkpoint {
    /// Bytes of the file that [`write`](Checkpoint::write) makes of tensors of these names, types and shapes, without palettes.
    ///
    /// # Errors
    /// [`Error::BadTensor`] for a shape with too many elements to count.
    ///
    /// ```
    /// use palettizer_pipeline::staged_output::SaveOptions;
    /// use palettizer_safetensors::{Checkpoint, Content, DenseTensor, ElementType};
    ///
    /// let (name, element, shape) = ("fc.bias", ElementType::F32, vec![2, 3]);
    /// let path = tempfile::tempdir()?.keep().join("x.safetensors");
    /// let tensor = DenseTensor::new(element, shape.clone(), &[0; 24]);
    /// Checkpoint::write(&path, &[(name, Content::Dense(tensor))], &Default::default(), SaveOptions::default())?;
    /// let len = Checkpoint::len_of(&[(name, element, shape.as_slice())], &Default::default())?;
    /// assert_eq!(len, std::fs::metadata(&path)?.len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn len_of(
        tensors: &[(&str, ElementType, &[usize])],
        metadata: &BTreeMap<String, String>,
    ) -> Result<u64, Error> {
        let mut all = Vec::with_capacity(tensors.len());
        for (name, element, shape) in tensors {
            all.push((*name, *element, *shape, bytes_of(name, *element, shape)?));
        }
        let data: usize = all.iter().map(|(_, _, _, bytes)| bytes).sum();
        let header = header::write(&foreign(metadata).collect(), all.into_iter());
        let header = header.map_err(|error| bad("the header", &error.to_string()))?;
        Ok((header.len() + data) as u64)
    }

    /// What the same tensors take at most in a file of fewer than `most` bytes that has palettes too, each of which takes
    /// [`len_of_palette`](Checkpoint::len_of_palette) beside them.
    ///
    /// # Errors
    /// Likewise.
    pub fn len_beside_palettes(
        tensors: &[(&str, ElementType, &[usize])],
        metadata: &BTreeMap<String, String>,
        most: u64,
    ) -> Result<u64, Error> {
        let mut strings: BTreeMap<String, String> = foreign(metadata).collect();
        strings.insert(FORMAT.to_owned(), VERSION.to_owned());
        strings.insert(WEIGHTS.to_owned(), "{}".to_owned());
        let header = header::write(&strings, std::iter::empty());
        let header = header.map_err(|error| bad("the header", &error.to_string()))?;
        let mut len = header.len() as u64 + PADDING;
        for (name, element, shape) in tensors {
            let data = bytes_of(name, *element, shape)? as u64;
            len += entry_bytes(name, *element, shape, most) + data;
        }
        Ok(len)
    }

    /// What the palette of a weight of this name takes at most in such a file.
    pub fn len_of_palette(name: &str, palette: &Palette, most: u64) -> u64 {
        palette_bytes(name, palette, most)
    }
}

fn bad(name: &str, what: &str) -> Error {
    Error::BadTensor {
        name: name.to_owned(),
        what: what.to_owned(),
    }
}

fn bytes_of(name: &str, element: ElementType, shape: &[usize]) -> Result<usize, Error> {
    let bytes = element.bytes(shape).filter(|&bytes| bytes as u64 <= MOST);
    bytes.ok_or_else(|| bad(name, "its shape has too many elements"))
}

impl Opened {
    /// Bytes of the index, if there is one, with all tensors that palettes may have.
    pub(crate) fn bytes_of_index(&self, plan: &Plan<Place>) -> Result<u64, Error> {
        let Some(index) = &self.index else {
            return Ok(0);
        };
        let jobs = plan
            .weights
            .iter()
            .filter(|planned| planned.job().is_some());
        let jobs: HashSet<Place> = jobs.map(|planned| planned.weight.place).collect();
        let mut files = BTreeMap::new();
        for (place, item) in self.items.iter().enumerate() {
            let file = self.shards[item.shard].name();
            if jobs.contains(&place) {
                files.extend(Role::ALL.map(|role| (role.of(&item.name), file.clone())));
            } else {
                files.insert(item.name.clone(), file);
            }
        }
        let text = index.rewritten(&files, self.len());
        let text = text.map_err(|error| PipelineError::writing(&index.path, error.into()))?;
        Ok(text.len() as u64)
    }

    /// Bytes of the files without the weights that a plan palettizes.
    pub(crate) fn bytes_without(&self, plan: &Plan<Place>) -> Result<u64, Error> {
        let jobs = plan
            .weights
            .iter()
            .filter(|planned| planned.job().is_some());
        let jobs: HashSet<Place> = jobs.map(|planned| planned.weight.place).collect();
        let most = self.len();
        let mut bytes = 0;
        for (number, shard) in self.shards.iter().enumerate() {
            let mut metadata: BTreeMap<String, String> = foreign(&shard.header.metadata).collect();
            let mut palettes = BTreeMap::new();
            let own = self.items.iter().enumerate();
            let own = own.filter(|(_, item)| item.shard == number);
            let mut any = false;
            for (place, item) in own {
                if jobs.contains(&place) {
                    any = true;
                    continue;
                }
                let mut add = |entry: &header::Entry| {
                    let text = entry_bytes(&entry.name, entry.element, &entry.shape, most);
                    bytes += text + entry.range.len() as u64;
                };
                match &item.kind {
                    Kind::Dense(at) => add(&shard.header.tensors[*at]),
                    Kind::Palette(stored) => {
                        palettes.insert(item.name.as_str(), stored.meta.clone());
                        stored.entries(shard).for_each(add);
                    }
                }
            }
            if any || !palettes.is_empty() {
                let text = serde_json::to_string(&palettes)
                    .map_err(|error| PipelineError::writing(&shard.path, error.into()))?;
                metadata.insert(FORMAT.to_owned(), VERSION.to_owned());
                metadata.insert(WEIGHTS.to_owned(), text);
            }
            let header = header::write(&metadata, std::iter::empty())
                .map_err(|error| PipelineError::writing(&shard.path, error.into()))?;
            bytes += header.len() as u64 + PADDING;
        }
        Ok(bytes)
    }
}
