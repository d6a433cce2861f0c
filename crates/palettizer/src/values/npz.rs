//! numpy's `.npz`: a zip archive with a `.npy` for each array.
//!
//! An archive may be bent to unfold to anything, so what its members say and what they give is held against the limits of all
//! files before memory is taken.

use super::npy;
use crate::runtime::Tensor;
use palettizer_pipeline::Limits;
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read as _, Seek, Write as _};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// The most arrays of an archive.
const MAX_MEMBERS: usize = 1 << 16;
const EXTENSION: &str = ".npy";

/// The arrays in an archive's bytes, by name.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn parse(bytes: &[u8], limits: Limits) -> Result<BTreeMap<String, Tensor>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    if archive.len() > MAX_MEMBERS {
        return Err(format!(
            "it has {} members; {MAX_MEMBERS} are allowed",
            archive.len()
        ));
    }
    let stored = bytes.len() as u64;
    let mut left = limits.dense(stored);
    let mut arrays = BTreeMap::new();
    for at in 0..archive.len() {
        let member = archive.by_index(at).map_err(|error| error.to_string())?;
        let name = member
            .name()
            .map_err(|error| error.to_string())?
            .into_owned();
        let array = name.strip_suffix(EXTENSION);
        let array = array
            .ok_or_else(|| format!("its member \"{name}\" is no .npy file"))?
            .to_owned();
        let asked = member.size();
        let exceeded = || {
            format!(
                "its member \"{name}\" unfolds to {asked} bytes or more, which is too much for a file of {stored} bytes"
            )
        };
        left = left.checked_sub(asked).ok_or_else(exceeded)?;
        let mut data = Vec::new();
        let room = usize::try_from(asked)
            .ok()
            .map(|asked| data.try_reserve_exact(asked));
        room.and_then(Result::ok).ok_or_else(exceeded)?;
        let read = member.take(asked.saturating_add(1)).read_to_end(&mut data);
        read.map_err(|error| format!("its member \"{name}\": {error}"))?;
        if data.len() as u64 > asked {
            return Err(exceeded());
        }
        let tensor = npy::parse(&data).map_err(|what| format!("its member \"{name}\": {what}"))?;
        if arrays.insert(array, tensor).is_some() {
            return Err(format!("it has two members \"{name}\""));
        }
    }
    Ok(arrays)
}

/// Writes an archive, its members as they are: what models give hardly gets smaller.
pub(crate) fn write<'a>(
    to: impl io::Write + Seek,
    arrays: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> io::Result<()> {
    let mut archive = ZipWriter::new(to);
    for (name, tensor) in arrays {
        let data = npy::encode(tensor);
        // without a time, so that the same arrays give the same bytes
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(data.len() as u64 >= u32::MAX.into());
        archive.start_file(format!("{name}{EXTENSION}"), options)?;
        archive.write_all(&data)?;
    }
    archive.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Dtype;

    fn archive(members: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, data) in members {
            let options = SimpleFileOptions::default().compression_method(method);
            archive.start_file(*name, options).unwrap();
            archive.write_all(data).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let one = Tensor::new(Dtype::F32, &[2], vec![1.0, 2.0]).unwrap();
        let two = Tensor::new(Dtype::I32, &[1, 1], vec![7]).unwrap();
        let mut bytes = Cursor::new(Vec::new());
        write(&mut bytes, [("a", &one), ("b/c", &two)].into_iter()).unwrap();
        let found = parse(bytes.get_ref(), Limits::default()).unwrap();
        assert_eq!(
            found,
            [("a".to_owned(), one.clone()), ("b/c".to_owned(), two)].into()
        );
        let packed = archive(
            &[("a.npy", &npy::encode(&one))],
            CompressionMethod::Deflated,
        );
        assert_eq!(parse(&packed, Limits::default()).unwrap()["a"], one);
    }

    #[test]
    fn damaged_archives_are_refused() {
        let one = npy::encode(&Tensor::new(Dtype::F32, &[2], vec![1.0, 2.0]).unwrap());
        let good = archive(&[("a.npy", &one)], CompressionMethod::Stored);
        for end in 0..good.len() {
            assert!(parse(&good[..end], Limits::default()).is_err());
        }
        for members in [&[("a.txt", &one[..])][..], &[("a.npy", &one[..9])]] {
            assert!(
                parse(
                    &archive(members, CompressionMethod::Stored),
                    Limits::default()
                )
                .is_err()
            );
        }
        // 300 MB of zeros in 300 kB
        let mut bomb = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        bomb.start_file("a.npy", options).unwrap();
        (0..300).for_each(|_| bomb.write_all(&[0; 1 << 20]).unwrap());
        let bomb = bomb.finish().unwrap().into_inner();
        let told = parse(&bomb, Limits::default().with_max_expansion(100)).unwrap_err();
        assert!(told.contains("too much for a file"), "{told}");
        // a member that is longer than it says
        let mut liar = archive(&[("a.npy", &one)], CompressionMethod::Stored);
        let length = (one.len() as u32).to_le_bytes();
        let places: Vec<usize> = (0..liar.len() - 4)
            .filter(|&at| liar[at..at + 4] == length)
            .collect();
        places
            .into_iter()
            .for_each(|at| liar[at..at + 4].copy_from_slice(&8u32.to_le_bytes()));
        assert!(parse(&liar, Limits::default()).is_err());
    }
}
