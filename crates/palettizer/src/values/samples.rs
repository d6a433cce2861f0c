//! What a model is run on, a sample at a time: arrays cut along their first axis, pictures, random numbers.

use super::split::{Cut, cut};
use super::{ValuesError, npy, npz, picture, tensors};
use crate::Error;
use crate::runtime::{Interface, Kind, Named, Session, Tensor, Value};
use palettizer_pipeline::mapped_file::MappedFile;
use palettizer_pipeline::{Error as PipelineError, Limits};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The deepest folders below a folder of samples.
const MAX_DEPTH: usize = 16;

/// Samples that a model can be run on.
///
/// ```no_run
/// use palettizer::coreml::Model;
/// use palettizer::runtime::Session;
/// use palettizer::values::Samples;
///
/// let session = Session::new(&Model::open("Model.mlpackage")?)?;
/// let samples = Samples::open("calibration.npz", session.interface(None)?)?;
/// for at in 0..samples.len() {
///     let outputs = session.run(samples.get(at)?)?;
/// }
/// # Ok::<(), palettizer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Samples {
    parts: Vec<Part>,
    /// Where each part begins.
    starts: Vec<usize>,
    len: usize,
}

#[derive(Clone, Debug)]
enum Part {
    /// Arrays by input, each with how it is cut.
    Arrays(BTreeMap<String, (Tensor, Cut)>),
    /// A picture in a file, for an input.
    Picture {
        path: PathBuf,
        input: Arc<str>,
        interface: Arc<Interface>,
    },
    /// Inputs themselves.
    Given(Named),
}

impl Samples {
    /// The samples of a file, or of all files of a folder in the order of their names.
    ///
    /// An `.npz` or `.safetensors` file has an array for each input, by its name; an `.npy` file is for the only one. An array of the
    /// shape that the model takes is one sample; with one more axis in front, or with more than one in front where the model takes one,
    /// each of its parts is one. A picture is for the only image.
    ///
    /// # Errors
    /// [`ValuesError`], [`PipelineError::Io`], and what a safetensors file may give.
    pub fn open(path: impl AsRef<Path>, interface: &Interface) -> Result<Self, Error> {
        Self::open_with(path, interface, Limits::default())
    }

    /// As [`open`](Self::open), within other limits for what archives may unfold to.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        path: impl AsRef<Path>,
        interface: &Interface,
        limits: Limits,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let interface = Arc::new(interface.clone());
        let mut parts = Vec::new();
        if path.is_dir() {
            let mut files = Vec::new();
            walk(path, 0, &mut files)?;
            files.sort_unstable();
            for file in &files {
                parts.push(part(file, &interface, limits)?);
            }
        } else {
            parts.push(part(path, &interface, limits)?);
        }
        let samples = Self::of(parts);
        match samples.is_empty() {
            true => Err(ValuesError::File {
                path: path.to_owned(),
                what: "there are no samples in it".to_owned(),
            }
            .into()),
            false => Ok(samples),
        }
    }

    /// Random samples of a function, the main one if none is named: see [`Session::random_inputs`].
    ///
    /// # Errors
    /// As [`Session::random_inputs`].
    pub fn random(
        session: &Session,
        function: Option<&str>,
        seed: u64,
        count: usize,
    ) -> Result<Self, Error> {
        let numbers = 0..count as u64;
        let parts = numbers.map(|number| {
            session
                .random_inputs(function, seed, number)
                .map(Part::Given)
        });
        Ok(Self::of(parts.collect::<Result<_, _>>()?))
    }

    /// These inputs, a sample each.
    ///
    /// ```
    /// use palettizer::runtime::{Dtype, Named, Tensor};
    /// use palettizer::values::Samples;
    ///
    /// let one = |x: f32| Tensor::new(Dtype::F32, &[1], vec![x]).map(|x| Named::from([("x".to_owned(), x.into())]));
    /// let samples = Samples::given([1.0, 2.0, 3.0].into_iter().filter_map(one));
    /// assert_eq!(samples.len(), 3);
    /// ```
    pub fn given(samples: impl IntoIterator<Item = Named>) -> Self {
        Self::of(samples.into_iter().map(Part::Given).collect())
    }

    fn of(parts: Vec<Part>) -> Self {
        let (mut starts, mut len) = (Vec::new(), 0);
        for part in &parts {
            starts.push(len);
            len += part.len();
        }
        Samples { parts, starts, len }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// No more than so many of them, the first.
    pub fn first(mut self, most: usize) -> Self {
        self.len = self.len.min(most);
        self
    }

    /// The inputs of a sample, by its number.
    ///
    /// # Errors
    /// What reading a picture may give.
    pub fn get(&self, at: usize) -> Result<Named, Error> {
        let place = self.starts.partition_point(|&start| start <= at);
        let found = place
            .checked_sub(1)
            .and_then(|place| Some((self.parts.get(place)?, self.starts[place])));
        match found {
            Some((part, start)) => part.get(at - start),
            None => Ok(Named::new()),
        }
    }
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Part::Arrays(arrays) => arrays
                .values()
                .map(|(_, cut)| cut.parts())
                .max()
                .unwrap_or(0),
            Part::Picture { .. } | Part::Given(_) => 1,
        }
    }

    fn get(&self, at: usize) -> Result<Named, Error> {
        match self {
            Part::Given(named) => Ok(named.clone()),
            Part::Picture {
                path,
                input,
                interface,
            } => {
                let Some(Kind::Image(kind)) = interface.input(input).map(|feature| &feature.kind)
                else {
                    return Ok(Named::new());
                };
                let file = MappedFile::open(path)?;
                let found = picture::parse(file.as_slice(), kind);
                file.unchanged()?;
                let image = found.map_err(|what| wrong(path, what))?;
                Ok([(input.to_string(), Value::Image(Arc::new(image)))].into())
            }
            Part::Arrays(arrays) => {
                let named = arrays.iter().map(|(name, (tensor, cut))| {
                    let part = cut.part(tensor, at);
                    (name.clone(), part)
                });
                Ok(named.collect())
            }
        }
    }
}

fn wrong(path: &Path, what: impl Into<String>) -> Error {
    ValuesError::File {
        path: path.to_owned(),
        what: what.into(),
    }
    .into()
}

/// All files below a folder, but those whose names begin with a dot.
fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |source| PipelineError::Io {
        path: folder.to_owned(),
        source,
    };
    if depth > MAX_DEPTH {
        return Err(wrong(
            folder,
            format!("folders are nested more than {MAX_DEPTH} deep"),
        ));
    }
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        match path.is_dir() {
            true => walk(&path, depth + 1, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

fn part(path: &Path, interface: &Arc<Interface>, limits: Limits) -> Result<Part, Error> {
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let arrays = match extension.as_str() {
        "npz" => {
            let file = MappedFile::open(path)?;
            let found = npz::parse(file.as_slice(), limits);
            file.unchanged()?;
            found.map_err(|what| wrong(path, what))?
        }
        "npy" => {
            let file = MappedFile::open(path)?;
            let found = npy::parse(file.as_slice());
            file.unchanged()?;
            let array = found.map_err(|what| wrong(path, what))?;
            [(only(path, interface, "an .npy file", |_| true)?, array)].into()
        }
        "safetensors" => tensors::read(path)?.map_err(|what| wrong(path, what))?,
        extension if picture::is_picture(extension) => {
            let image = |kind: &Kind| matches!(kind, Kind::Image(_));
            let input = only(path, interface, "a picture", image)?;
            // that it is there is found out now, not after an hour
            MappedFile::open(path)?;
            return Ok(Part::Picture {
                path: path.to_owned(),
                input: input.into(),
                interface: Arc::clone(interface),
            });
        }
        _ => {
            return Err(ValuesError::Kind {
                path: path.to_owned(),
                folders: true,
            }
            .into());
        }
    };
    assigned(path, arrays, interface)
}

/// The only input of a kind that must be given, or the only one of it at all.
fn only(
    path: &Path,
    interface: &Interface,
    what: &str,
    of: impl Fn(&Kind) -> bool,
) -> Result<String, Error> {
    let all: Vec<_> = interface
        .inputs
        .iter()
        .filter(|input| of(&input.kind))
        .collect();
    let needed: Vec<_> = interface
        .inputs
        .iter()
        .filter(|input| input.default.is_none())
        .collect();
    match (needed.as_slice(), all.as_slice()) {
        ([only], _) if of(&only.kind) => Ok(only.name.clone()),
        ([], [only]) => Ok(only.name.clone()),
        _ => Err(ValuesError::Names {
            path: path.to_owned(),
            what: format!("{what} is for a model with one such input and no other"),
            known: known(interface),
        }
        .into()),
    }
}

fn known(interface: &Interface) -> Vec<String> {
    let describe = |feature: &crate::runtime::Feature| match &feature.kind {
        Kind::Array(array) => format!("{} {}", feature.name, array.shapes_text()),
        Kind::Image(image) => format!("{} (image of {})", feature.name, image.sizes_text()),
        _ => feature.name.clone(),
    };
    interface.inputs.iter().map(describe).collect()
}

/// Arrays with the inputs that they are for.
fn assigned(
    path: &Path,
    arrays: BTreeMap<String, Tensor>,
    interface: &Interface,
) -> Result<Part, Error> {
    let names = |what: String| ValuesError::Names {
        path: path.to_owned(),
        what,
        known: known(interface),
    };
    let missing = interface
        .inputs
        .iter()
        .find(|input| input.default.is_none() && !arrays.contains_key(&input.name));
    if let Some(missing) = missing {
        return Err(names(format!("there is no array \"{}\"", missing.name)).into());
    }
    let mut found = BTreeMap::new();
    for (name, tensor) in arrays {
        let Some(feature) = interface.input(&name) else {
            return Err(names(format!("\"{name}\" is none of the inputs")).into());
        };
        let fitting = cut(&tensor, &feature.kind).ok_or_else(|| ValuesError::Shape {
            path: path.to_owned(),
            name: name.clone(),
            found: format!("{} {:?}", tensor.dtype().name(), tensor.shape()),
            expected: match &feature.kind {
                Kind::Array(array) => array.shapes_text(),
                Kind::Image(image) => format!(
                    "an image of {} as uint8 [height, width] or [height, width, 3]",
                    image.sizes_text()
                ),
                _ => "no array".to_owned(),
            },
        })?;
        found.insert(name, (tensor, fitting));
    }
    let mut counts = found.iter().filter(|(_, (_, cut))| cut.is_several());
    if let Some((first, (_, cut))) = counts.next()
        && let Some((other, (_, others))) =
            counts.find(|(_, (_, other))| other.parts() != cut.parts())
    {
        let what = format!(
            "\"{first}\" has {} samples, \"{other}\" {}",
            cut.parts(),
            others.parts()
        );
        return Err(wrong(path, what));
    }
    Ok(Part::Arrays(found))
}
