//! numpy's `.npy`: a magic, the length of a header, the header as a Python dictionary, and the elements.
//!
//! Format: numpy's `lib/format.py`, versions 1 to 3. Read are booleans, integers, floats and strings of fixed width, of either byte
//! order, row-major or column-major. What cannot be read is refused; nothing is guessed, and nothing is evaluated.

use super::stored::{Stored, words};
use crate::runtime::{Dtype, Elements, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest header: dtypes and shapes of arrays take a line.
const MAX_HEADER: usize = 1 << 16;
/// The most dimensions that numpy has.
const MAX_RANK: usize = 64;
/// What headers are padded to.
const ALIGN: usize = 64;

/// numpy's names, after a mark for the order of bytes.
const STORED: [(&str, Stored); 12] = [
    ("b1", Stored::Bool),
    ("i1", Stored::I8),
    ("u1", Stored::U8),
    ("i2", Stored::I16),
    ("u2", Stored::U16),
    ("i4", Stored::I32),
    ("u4", Stored::U32),
    ("i8", Stored::I64),
    ("u8", Stored::U64),
    ("f2", Stored::F16),
    ("f4", Stored::F32),
    ("f8", Stored::F64),
];

/// The header of an array.
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

/// The array in a file's bytes.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn parse(bytes: &[u8]) -> Result<Tensor, String> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it does not begin as a .npy file does")?;
    let (&[major, _minor], rest) = rest.split_first_chunk().ok_or("its header is cut off")?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk().ok_or("its header is cut off")?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk().ok_or("its header is cut off")?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        _ => return Err(format!("its version is {major}; versions 1 to 3 are known")),
    };
    if length > MAX_HEADER {
        return Err(format!("its header is said to take {length} bytes"));
    }
    let (header, data) = rest
        .split_at_checked(length)
        .ok_or("its header is cut off")?;
    let text = std::str::from_utf8(header).map_err(|_| "its header is not text")?;
    let header = Dictionary(text).header()?;
    tensor(&header, data)
}

fn tensor(header: &Header, data: &[u8]) -> Result<Tensor, String> {
    let descr = header.descr.as_str();
    let unknown = || {
        format!(
            "its elements are of {descr:?}; expected booleans, integers, floats or strings of fixed width"
        )
    };
    let big = descr.starts_with('>');
    let kind = descr.trim_start_matches(['<', '>', '|', '=']);
    // numpy gives strings one letter at least
    let letters = kind
        .strip_prefix('U')
        .and_then(|letters| letters.parse().ok());
    let letters = letters.filter(|&letters: &usize| letters > 0);
    let stored = STORED
        .iter()
        .find(|(name, _)| *name == kind)
        .map(|(_, stored)| *stored);
    let width = match (letters, stored) {
        (Some(letters), _) => letters.checked_mul(4),
        (None, Some(stored)) => Some(stored.width()),
        (None, None) => return Err(unknown()),
    };
    let expected = (header.shape.iter()).try_fold(width.ok_or_else(unknown)?, |product, &dim| {
        product.checked_mul(dim)
    });
    let expected = expected
        .ok_or_else(|| format!("the shape {:?} is larger than any memory", header.shape))?;
    if data.len() != expected {
        let (found, shape) = (data.len(), &header.shape);
        return Err(format!(
            "it has {found} bytes of elements; the shape {shape:?} of {descr} takes {expected}"
        ));
    }
    let (dtype, elements) = match (stored, width) {
        (Some(stored), _) => stored.read(data, big)?,
        (None, width) => {
            let texts = data
                .chunks_exact(width.unwrap_or(4))
                .map(|word| text(word, big));
            let texts: Option<Vec<String>> = texts.collect();
            (Dtype::Text, texts.ok_or("a string in it is none")?.into())
        }
    };
    let found = Tensor::new(dtype, &header.shape, elements);
    let found = found.ok_or("its elements are not as many as its shape says")?;
    Ok(match header.fortran {
        true => row_major(&found),
        false => found,
    })
}

/// UTF-32, padded with zeros.
fn text(word: &[u8], big: bool) -> Option<String> {
    let letters = words(word, big, u32::from_le_bytes);
    let end = letters
        .iter()
        .rposition(|&letter| letter != 0)
        .map_or(0, |last| last + 1);
    letters[..end]
        .iter()
        .map(|&letter| char::from_u32(letter))
        .collect()
}

/// A tensor whose elements lie column by column, row by row.
fn row_major(tensor: &Tensor) -> Tensor {
    let shape = tensor.shape();
    let mut order = Vec::with_capacity(tensor.len());
    let mut index = vec![0; shape.len()];
    for _ in 0..tensor.len() {
        let mut at = 0;
        for (&dim, &i) in shape.iter().zip(&index).rev() {
            at = at * dim + i;
        }
        order.push(at);
        for (i, &dim) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < dim {
                break;
            }
            *i = 0;
        }
    }
    fn picked<T: Clone>(values: &[T], order: &[usize]) -> Vec<T> {
        order.iter().map(|&at| values[at].clone()).collect()
    }
    let elements: Elements = match tensor.elements() {
        Elements::Floats(values) => picked(values, &order).into(),
        Elements::Ints(values) => picked(values, &order).into(),
        Elements::Bools(values) => picked(values, &order).into(),
        Elements::Texts(values) => picked(values, &order).into(),
    };
    Tensor::new(tensor.dtype(), shape, elements).unwrap_or_else(|| tensor.clone())
}

/// A Python dictionary with three known keys, and nothing else.
struct Dictionary<'a>(&'a str);

impl<'a> Dictionary<'a> {
    fn header(mut self) -> Result<Header, String> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.symbol("{")?;
        while !self.has("}") {
            let key = self.string()?;
            self.symbol(":")?;
            match key {
                "descr" => descr = Some(self.string()?.to_owned()),
                "fortran_order" => fortran = Some(self.truth()?),
                "shape" => shape = Some(self.shape()?),
                _ => return Err(format!("its header has the key {key:?}")),
            }
            if !self.has(",") {
                self.symbol("}")?;
                break;
            }
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) if self.0.trim().is_empty() => Ok(Header {
                descr,
                fortran,
                shape,
            }),
            _ => Err("its header does not say descr, fortran_order and shape alone".to_owned()),
        }
    }

    fn has(&mut self, symbol: &str) -> bool {
        let rest = self.0.trim_start();
        let found = rest.strip_prefix(symbol);
        self.0 = found.unwrap_or(rest);
        found.is_some()
    }

    fn symbol(&mut self, symbol: &str) -> Result<(), String> {
        match self.has(symbol) {
            true => Ok(()),
            false => Err(format!("its header lacks a {symbol:?}")),
        }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.has("'") { '\'' } else { '"' };
        if quote == '"' {
            self.symbol("\"")?;
        }
        let (string, rest) = self
            .0
            .split_once(quote)
            .ok_or("a string in its header does not end")?;
        self.0 = rest;
        Ok(string)
    }

    fn truth(&mut self) -> Result<bool, String> {
        let found = self.has("True");
        match found || self.has("False") {
            true => Ok(found),
            false => Err("fortran_order in its header is neither True nor False".to_owned()),
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, String> {
        let mut shape = Vec::new();
        self.symbol("(")?;
        while !self.has(")") {
            let end = self
                .0
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(self.0.len());
            let (digits, rest) = self.0.split_at(end);
            let dim = digits
                .parse()
                .map_err(|_| "a dimension in its header is no size")?;
            self.0 = rest;
            // Python 2 wrote 3L
            self.has("L");
            shape.push(dim);
            if shape.len() > MAX_RANK {
                return Err(format!("it has more than {MAX_RANK} dimensions"));
            }
            if !self.has(",") {
                self.symbol(")")?;
                break;
            }
        }
        Ok(shape)
    }
}

/// An array as numpy writes it.
pub(crate) fn encode(tensor: &Tensor) -> Vec<u8> {
    let (descr, data) = match (Stored::of(tensor), tensor.elements()) {
        (Some((stored, data)), _) => {
            let name = STORED.iter().find(|(_, known)| *known == stored);
            let order = if stored.width() == 1 { '|' } else { '<' };
            (
                format!("{order}{}", name.map_or("", |(name, _)| *name)),
                data,
            )
        }
        (None, Elements::Texts(values)) => {
            let width = values
                .iter()
                .map(|text| text.chars().count())
                .max()
                .unwrap_or(0)
                .max(1);
            let padded = values.iter().flat_map(|text| {
                let letters = text.chars().map(u32::from).chain(std::iter::repeat(0));
                letters.take(width).flat_map(u32::to_le_bytes)
            });
            (format!("<U{width}"), padded.collect())
        }
        (None, _) => (String::new(), Vec::new()),
    };
    let dims: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
    let dims = match dims.as_slice() {
        [only] => format!("{only},"),
        dims => dims.join(", "),
    };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    // the magic, the version and the length are 10 bytes, the end of the line is one
    let whole = (10 + header.len() + 1).next_multiple_of(ALIGN);
    header.extend(std::iter::repeat_n(' ', whole - 11 - header.len()));
    header.push('\n');
    let mut bytes = Vec::with_capacity(whole + data.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&data);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[1, 0]);
        bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn what_is_written_is_read_again() {
        let tensors = [
            Tensor::new(Dtype::F16, &[2, 2], vec![1.0, -0.5, f32::INFINITY, 65504.0]),
            Tensor::new(Dtype::F32, &[3], vec![1e-30, -0.0, 3.5]),
            Tensor::new(Dtype::F32, &[], vec![2.0]),
            Tensor::new(Dtype::F32, &[0, 4], Vec::<f32>::new()),
            Tensor::new(Dtype::I8, &[2], vec![-128, 127]),
            Tensor::new(Dtype::U8, &[2], vec![0, 255]),
            Tensor::new(Dtype::I16, &[1], vec![-32768]),
            Tensor::new(Dtype::U16, &[1], vec![65535]),
            Tensor::new(Dtype::U32, &[1], vec![-1]),
            Tensor::new(Dtype::I32, &[1, 1, 1], vec![i32::MIN]),
            Tensor::new(Dtype::Bool, &[2], vec![true, false]),
            Tensor::new(
                Dtype::Text,
                &[3],
                vec!["a".to_owned(), String::new(), "größer".to_owned()],
            ),
        ];
        for tensor in tensors {
            let tensor = tensor.unwrap();
            let bytes = encode(&tensor);
            let start = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1;
            assert_eq!(start % ALIGN, 0);
            assert_eq!(parse(&bytes).unwrap(), tensor);
        }
    }

    #[test]
    fn other_orders_are_put_right() {
        let header = "{\"descr\": '>i2', 'fortran_order': True, 'shape': (2, 3)}";
        let found = parse(&file(header, &[0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6])).unwrap();
        assert_eq!(found.ints().unwrap(), [1, 2, 3, 4, 5, 6]);
        let header = "{'descr': '<i8', 'fortran_order': False, 'shape': (1L,), }\n";
        assert_eq!(
            parse(&file(header, &7i64.to_le_bytes()))
                .unwrap()
                .ints()
                .unwrap(),
            [7]
        );
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        assert!(parse(&file(good, &[0; 8])).is_ok());
        let headers = [
            "",
            "{",
            "{}",
            "[]",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } import os",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}",
            "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
            "{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '', 'fortran_order': False, 'shape': (2,), }",
            "{'descr': 'ä4', 'fortran_order': False, 'shape': (2,), }",
            "{'descr': '<U0', 'fortran_order': False, 'shape': (1099511627776,), }",
            "{'descr': '<U99999999999999999999', 'fortran_order': False, 'shape': (2,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,",
        ];
        for header in headers {
            assert!(parse(&file(header, &[0; 8])).is_err(), "{header}");
        }
        let whole = file(good, &[0; 8]);
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_err(), "{end}");
        }
        let wide = file(
            "{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }",
            &[255; 8],
        );
        assert!(parse(&wide).unwrap_err().contains("32 bits"));
    }
}
