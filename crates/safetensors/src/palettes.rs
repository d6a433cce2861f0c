//! Palettes and tensors in memory, written to one safetensors file.

use crate::Error;
use crate::checkpoint::{Checkpoint, Content};
use crate::compact::{FORMAT, Meta, VERSION, WEIGHTS, pieces, weights_json};
use crate::output;
use crate::write::{self, Piece, Source};
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::staged_output::SaveOptions;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

impl Checkpoint {
    /// Writes tensors and palettized weights to a `.safetensors` file in the compact form, which [`Checkpoint::open`] reads.
    /// `metadata` are strings for its users; keys that begin with `palettizer.` are ours.
    ///
    /// [`Checkpoint::open`]: Checkpoint::open
    ///
    /// # Errors
    /// [`Error::BadTensor`] for bytes that are not those of the shape, a palette that contradicts itself or has a mask, and a
    /// name that is there twice; [`Error::OutputKind`], [`Error::HeaderTooLarge`]; in [`Error::Pipeline`] what writing may
    /// give. Then `out` is as it was before.
    ///
    /// ```
    /// use palettizer_palette::{Context, Dtype, Mode, Nbits, PaletteSpec, Tensor, palettize};
    /// use palettizer_pipeline::staged_output::SaveOptions;
    /// use palettizer_safetensors::{Checkpoint, Content};
    ///
    /// let bytes: Vec<u8> = (0..256).flat_map(|i| (i as f32).sin().to_le_bytes()).collect();
    /// let tensor = Tensor::new(Dtype::F32, &[16, 16], &bytes)?;
    /// let palette = palettize(&tensor, &PaletteSpec::new(Mode::Kmeans(Nbits::B4)), &Context::default())?;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("small.safetensors");
    /// let dense = palette.decompress();
    /// let contents = [("fc.weight", Content::Palette(palette.into()))];
    /// Checkpoint::write(&path, &contents, &Default::default(), SaveOptions::default())?;
    ///
    /// match Checkpoint::open(&path)?.get("fc.weight")? {
    ///     Content::Palette(palette) => assert_eq!(palette.decompress(), dense),
    ///     Content::Dense(_) => unreachable!("it was palettized"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write(
        out: impl AsRef<Path>,
        contents: &[(impl AsRef<str>, Content<'_>)],
        metadata: &BTreeMap<String, String>,
        options: SaveOptions,
    ) -> Result<(), Error> {
        let out = out.as_ref();
        let bad = |name: &str, what: String| Error::BadTensor {
            name: name.to_owned(),
            what,
        };
        let mut all: Vec<Piece<'_>> = Vec::new();
        let mut metas = BTreeMap::new();
        for (name, content) in contents {
            let name = name.as_ref();
            match content {
                Content::Dense(tensor) => {
                    let expected = tensor.element.bytes(&tensor.shape);
                    if expected != Some(tensor.bytes.len()) {
                        let (shape, found) = (&tensor.shape, tensor.bytes.len());
                        return Err(bad(
                            name,
                            format!("its shape is {shape:?}, which does not have {found} bytes"),
                        ));
                    }
                    all.push(Piece {
                        name: name.to_owned(),
                        element: tensor.element,
                        shape: tensor.shape.clone(),
                        len: tensor.bytes.len(),
                        source: Source::Memory(tensor.bytes),
                    });
                }
                Content::Palette(palette) => {
                    if palette.mask.is_some() || !palette.dtype.is_float() {
                        return Err(bad(name, "it has a mask, or is no float weight".to_owned()));
                    }
                    let dense = palette.try_decompress();
                    dense.map_err(|error| bad(name, error.to_string()))?;
                    metas.insert(name, Meta::from(&**palette));
                    all.extend(pieces(name, palette));
                }
            }
        }
        let mut names = HashSet::new();
        let mut both = all
            .iter()
            .map(|piece| piece.name.as_str())
            .chain(metas.keys().copied());
        if let Some(name) = both.find(|name| !names.insert(*name)) {
            return Err(bad(name, "the name is there twice".to_owned()));
        }
        let foreign = metadata
            .iter()
            .filter(|(key, _)| !key.starts_with("palettizer."));
        let mut metadata: BTreeMap<String, String> = foreign
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !metas.is_empty() {
            let metas = metas.iter().map(|(name, meta)| (*name, meta)).collect();
            let json = weights_json(&metas);
            let json = json.map_err(|error| PipelineError::writing(out, error.into()))?;
            metadata.insert(FORMAT.to_owned(), VERSION.to_owned());
            metadata.insert(WEIGHTS.to_owned(), json);
        }
        let staged = output::file(out, options)?;
        let written = write::write(&staged.built(), &metadata, all, &());
        staged.named(written)?;
        Ok(staged.commit()?)
    }
}
