//! Pictures: PNG and JPEG files, scaled to the size that a model takes.

use crate::runtime::{Image, ImageKind, Pixels};
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits};
use std::cmp::Ordering;
use std::io::Cursor;

/// The longest side of a picture.
const MAX_SIDE: u32 = 1 << 15;
/// The most bytes that its pixels may take in memory.
const MAX_BYTES: u64 = 1 << 30;

/// Whether a file of this extension is a picture.
pub(crate) fn is_picture(extension: &str) -> bool {
    ["png", "jpg", "jpeg"].contains(&extension.to_ascii_lowercase().as_str())
}

/// The picture in a file's bytes, upright, in the size that a model takes: what is too long on one side is cut off on both of its
/// ends, as Vision does by default, and the rest is scaled.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn parse(bytes: &[u8], kind: &ImageKind) -> Result<Image, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let format = reader.as_ref().ok().and_then(ImageReader::format);
    if !matches!(format, Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err("it is neither PNG nor JPEG".to_owned());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    if let Ok(reader) = &mut reader {
        reader.limits(limits);
    }
    let decoded = reader
        .map_err(image::ImageError::IoError)
        .and_then(|reader| {
            let mut decoder = reader.into_decoder()?;
            let turned = decoder.orientation()?;
            let mut decoded = DynamicImage::from_decoder(decoder)?;
            decoded.apply_orientation(turned);
            Ok(decoded)
        });
    let decoded = decoded.map_err(|error| error.to_string())?;
    let found = (decoded.width() as usize, decoded.height() as usize);
    let fitting = match kind.allows(found.0, found.1) {
        true => decoded,
        false => {
            let side = |side: usize| {
                u32::try_from(side)
                    .ok()
                    .filter(|&side| (1..=MAX_SIDE).contains(&side))
            };
            let size = side(kind.width).zip(side(kind.height));
            let (width, height) =
                size.ok_or_else(|| format!("the model takes images of {}", kind.sizes_text()))?;
            cut(decoded, width, height).resize_exact(width, height, FilterType::Triangle)
        }
    };
    let (width, height) = (fitting.width() as usize, fitting.height() as usize);
    let pixels = match kind.color.channels() {
        1 if !fitting.color().has_color() => Pixels::Gray(fitting.into_luma8().into_raw()),
        // what is colored becomes gray by the weights that the runtime has for all
        _ => Pixels::Rgb(fitting.into_rgb8().into_raw()),
    };
    Image::new(width, height, pixels)
        .ok_or_else(|| "its pixels are not as many as its size says".to_owned())
}

/// The middle of a picture, in the proportions of a size.
fn cut(picture: DynamicImage, width: u32, height: u32) -> DynamicImage {
    let (across, down) = (picture.width(), picture.height());
    // no side is longer than MAX_SIDE, so that no product overflows
    let part = |side: u32, to: u32, of: u32| (side * to).div_ceil(of.max(1)).max(1);
    match (across * height).cmp(&(down * width)) {
        Ordering::Greater => {
            let kept = part(down, width, height).min(across);
            picture.crop_imm((across - kept) / 2, 0, kept, down)
        }
        Ordering::Less => {
            let kept = part(across, height, width).min(down);
            picture.crop_imm(0, (down - kept) / 2, across, kept)
        }
        Ordering::Equal => picture,
    }
}

/// A picture as a PNG file.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn encode(picture: &Image) -> Result<Vec<u8>, String> {
    let side = |side: usize| {
        u32::try_from(side).map_err(|_| format!("{side} pixels are too many for a PNG file"))
    };
    let (width, height) = (side(picture.width())?, side(picture.height())?);
    let (color, bytes): (image::ExtendedColorType, Vec<u8>) = match picture.pixels() {
        Pixels::Gray(values) => (image::ExtendedColorType::L8, values.clone()),
        Pixels::Rgb(values) => (image::ExtendedColorType::Rgb8, values.clone()),
        Pixels::GrayF16(values) => (
            image::ExtendedColorType::L8,
            values.iter().map(|&value| value.round() as u8).collect(),
        ),
    };
    let mut written = Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut written, &bytes, width, height, color, ImageFormat::Png)
        .map_err(|error| error.to_string())?;
    Ok(written.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{ColorSpace, Sizes};

    fn kind(width: usize, height: usize, color: ColorSpace) -> ImageKind {
        ImageKind {
            width,
            height,
            color,
            sizes: Sizes::One,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let pixels = (0..3 * 4 * 2).map(|at| at * 10).collect();
        let picture = Image::new(4, 2, Pixels::Rgb(pixels)).unwrap();
        let bytes = encode(&picture).unwrap();
        assert_eq!(
            parse(&bytes, &kind(4, 2, ColorSpace::Bgr)).unwrap(),
            picture
        );
        let gray = Image::new(2, 2, Pixels::Gray(vec![0, 50, 100, 255])).unwrap();
        assert_eq!(
            parse(&encode(&gray).unwrap(), &kind(2, 2, ColorSpace::Gray)).unwrap(),
            gray
        );
        // the middle of it
        let small = parse(&bytes, &kind(1, 1, ColorSpace::Rgb)).unwrap();
        assert_eq!((small.width(), small.height()), (1, 1));
        for end in 0..bytes.len() - 12 {
            assert!(
                parse(&bytes[..end], &kind(4, 2, ColorSpace::Rgb)).is_err(),
                "{end}"
            );
        }
        assert!(
            parse(b"GIF89a", &kind(4, 2, ColorSpace::Rgb))
                .unwrap_err()
                .contains("neither PNG")
        );
    }
}
