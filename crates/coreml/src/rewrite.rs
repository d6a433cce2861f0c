//! Weight files written anew: new blobs appended, those that stay copied, each once.

use crate::Error;
use crate::blob::{ALIGNMENT, RECORD_LEN, WeightWriter};
use crate::package::Package;
use crate::program::mil::{blob_value, bytes_value, element_count, known_tensor};
use crate::proto::{DataType, Value, ValueType};
use palettizer_pipeline::go_on;
use std::collections::{BTreeMap, HashMap};
use std::io::{Seek, Write};
use std::sync::atomic::AtomicBool;

/// Where a constant that had no weight file goes: the name that coremltools uses.
pub(crate) const DEFAULT_FILE: &str = "@model_path/weights/weight.bin";

/// A value with fewer elements stays in the program, as coremltools has it.
const LEAST_BLOB_ELEMENTS: usize = 10;

/// New weight files by name, with their lengths.
pub(crate) type Written<W> = BTreeMap<String, (W, u64)>;

/// The weight files of a model that is being made.
pub(crate) struct Rewriter<'a, W> {
    package: &'a Package,
    open: &'a mut (dyn FnMut(&str) -> Result<WeightWriter<W>, Error> + Send),
    stop: Option<&'a AtomicBool>,
    files: BTreeMap<String, WeightWriter<W>>,
    /// New offsets of the blobs that were copied, by file, old offset and type.
    copied: HashMap<(String, u64, DataType), u64>,
}

impl<'a, W: Write + Seek> Rewriter<'a, W> {
    /// Copies from `package`; `open` begins a weight file of a name; `stop` ends the work before the next blob.
    pub(crate) fn new(
        package: &'a Package,
        open: &'a mut (dyn FnMut(&str) -> Result<WeightWriter<W>, Error> + Send),
        stop: Option<&'a AtomicBool>,
    ) -> Self {
        Self {
            package,
            open,
            stop,
            files: BTreeMap::new(),
            copied: HashMap::new(),
        }
    }

    /// Stores a tensor: in `file` (or the usual one), or in place if it is small.
    pub(crate) fn store(
        &mut self,
        file: Option<&str>,
        dtype: DataType,
        shape: &[usize],
        bytes: &[u8],
    ) -> Result<Value, Error> {
        let Some(used) = bits_in_file(dtype, shape) else {
            return Ok(bytes_value(dtype, shape, bytes));
        };
        let file = file.unwrap_or(DEFAULT_FILE);
        let unused = bytes.len() as u64 * 8 - used;
        let offset = self.writer(file)?.append(dtype, bytes, unused)?;
        Ok(blob_value(dtype, shape, file, offset))
    }

    /// Copies the blob that `value` refers to, if any, and makes `value` refer to the copy. The type of
    /// the value decides that of the blob: raising an opset gives the same bits another type.
    pub(crate) fn copy(&mut self, value: &mut Value) -> Result<(), Error> {
        let Some(place) = &mut value.blob_file else {
            return Ok(());
        };
        let file = self.package.weight_file(&place.file_name)?;
        let blob = file.blob(place.offset)?;
        let mut dtype = blob.dtype;
        let mut unused = blob.unused_bits;
        if let Some((wanted, left)) = retyped(blob.data.len() as u64, value.r#type.as_ref())
            .filter(|(wanted, _)| *wanted != dtype)
        {
            (dtype, unused) = (wanted, left);
        }
        let key = (place.file_name.clone(), place.offset, dtype);
        if let Some(&offset) = self.copied.get(&key) {
            place.offset = offset;
            return Ok(());
        }
        let offset = self.writer(&key.0)?.append(dtype, blob.data, unused)?;
        file.release(blob.data_range());
        place.offset = offset;
        self.copied.insert(key, offset);
        Ok(())
    }

    /// The finished files, with their lengths.
    pub(crate) fn finish(self) -> Result<Written<W>, Error> {
        let finish = |(name, writer): (String, WeightWriter<W>)| {
            let len = writer.position();
            Ok((name, (writer.finish()?, len)))
        };
        self.files.into_iter().map(finish).collect()
    }

    fn writer(&mut self, file: &str) -> Result<&mut WeightWriter<W>, Error> {
        go_on(self.stop)?;
        if !self.files.contains_key(file) {
            let writer = (self.open)(file)?;
            self.files.insert(file.to_owned(), writer);
        }
        // The entry is there now; asking the map again is what the borrow checker follows.
        let begun = self.files.get_mut(file);
        begun.ok_or_else(|| Error::bad_value(file, "the weight file was not begun"))
    }
}

/// The bits of a tensor that goes to a weight file; `None` if it stays in the program.
fn bits_in_file(dtype: DataType, shape: &[usize]) -> Option<u64> {
    let elements = element_count(shape).unwrap_or(0);
    let bits = dtype.bits().filter(|_| dtype.blob_number().is_some());
    let bits = bits.filter(|_| elements >= LEAST_BLOB_ELEMENTS)?;
    Some(elements as u64 * u64::from(bits))
}

/// The blobs of weight files, counted and not written.
pub(crate) struct Counter<'a> {
    /// An offset that none of them is beyond.
    pub offset: u64,
    /// The file of all of them; `None` for the usual one.
    pub file: Option<&'a str>,
    /// Bytes of all so far, but for the files' headers.
    pub bytes: u64,
}

impl Counter<'_> {
    /// What [`Rewriter::store`] would give, at the last offset that there may be.
    pub(crate) fn store(&mut self, dtype: DataType, shape: &[usize], bytes: &[u8]) -> Value {
        if bits_in_file(dtype, shape).is_none() {
            return bytes_value(dtype, shape, bytes);
        }
        self.bytes += blob_bytes(bytes.len() as u64);
        blob_value(dtype, shape, self.file.unwrap_or(DEFAULT_FILE), self.offset)
    }
}

/// Bytes that a blob of so many takes in a file, with its record and what is left free behind it.
pub(crate) fn blob_bytes(data: u64) -> u64 {
    RECORD_LEN + data.next_multiple_of(ALIGNMENT)
}

/// The blob type that a value's own type asks for, and the bits that it leaves unused at the end of `bytes` bytes;
/// `None` if it is the type of another number of bytes.
pub(crate) fn retyped(bytes: u64, value_type: Option<&ValueType>) -> Option<(DataType, u64)> {
    let (dtype, shape) = known_tensor(value_type)?;
    dtype.blob_number()?;
    let used = (element_count(&shape)? as u64).checked_mul(u64::from(dtype.bits()?))?;
    let left = bytes.checked_mul(8)?.checked_sub(used)?;
    (left < 8).then_some((dtype, left))
}
