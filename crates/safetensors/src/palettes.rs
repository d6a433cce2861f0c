//! Palettes and tensors in memory, written to one safetensors file.

use crate::Error;
use crate::checkpoint::{Checkpoint, Content};
use crate::compact::{self, Meta, foreign, parts};
use crate::output;
use crate::write::{self, Piece, Source};
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
            all.extend(pieces(name, content).map_err(|what| bad(name, what))?);
            if let Content::Palette(palette) = content {
                metas.insert(name, Meta::from(&**palette));
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
        let mut strings: BTreeMap<String, String> = foreign(metadata).collect();
        if !metas.is_empty() {
            strings.extend(compact::metadata(out, &metas)?);
        }
        let staged = output::file(out, options)?;
        let written = write::write(&staged.built(), &strings, all, &());
        staged.named(written)?;
        Ok(staged.commit()?)
    }
}

/// The tensors of a weight, to be written; a text says why they cannot be.
fn pieces<'a>(name: &str, content: &'a Content<'_>) -> Result<Vec<Piece<'a>>, String> {
    let piece = |name, element, shape, bytes: &'a [u8]| Piece {
        name,
        element,
        shape,
        len: bytes.len(),
        source: Source::Memory(bytes),
    };
    match content {
        Content::Dense(tensor) => {
            let (shape, found) = (&tensor.shape, tensor.bytes.len());
            if tensor.element.bytes(shape) != Some(found) {
                return Err(format!(
                    "its shape is {shape:?}, which does not have {found} bytes"
                ));
            }
            let name = name.to_owned();
            Ok(vec![piece(
                name,
                tensor.element,
                shape.clone(),
                tensor.bytes,
            )])
        }
        Content::Palette(palette) => {
            if palette.mask.is_some() || !palette.dtype.is_float() {
                return Err("it has a mask, or is no float weight".to_owned());
            }
            palette
                .try_decompress()
                .map_err(|error| error.to_string())?;
            let parts = parts(palette).into_iter();
            let pieces =
                parts.map(|(role, ty, shape, bytes)| piece(role.of(name), ty, shape, bytes));
            Ok(pieces.collect())
        }
    }
}
