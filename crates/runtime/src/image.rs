//! Images as models take and give them: rows of 8-bit pixels, or of gray in fp16, and the tensors that they are to a program.
//!
//! A program sees an image as floats, 0 to 255, of the shape \[1, channels, height, width\]; what it makes of them, such as a scale
//! and a bias, is in its operations.

use crate::tensor::{Dtype, Tensor, element_count, round_to_f16};

/// What the channels of a model's image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorSpace {
    /// One of 8 bits.
    Gray,
    /// Red, green and blue of 8 bits each.
    Rgb,
    /// The same, blue first. Pictures have red first all the same: the order is that of the channels in the program.
    Bgr,
    /// One of 16-bit floats.
    GrayF16,
}

impl ColorSpace {
    /// By its number in a model's description.
    pub(crate) fn of_number(number: i32) -> Option<Self> {
        Some(match number {
            10 => ColorSpace::Gray,
            20 => ColorSpace::Rgb,
            30 => ColorSpace::Bgr,
            40 => ColorSpace::GrayF16,
            _ => return None,
        })
    }

    /// Its name in a model's description.
    pub fn name(self) -> &'static str {
        match self {
            ColorSpace::Gray => "GRAYSCALE",
            ColorSpace::Rgb => "RGB",
            ColorSpace::Bgr => "BGR",
            ColorSpace::GrayF16 => "GRAYSCALE_FLOAT16",
        }
    }

    /// How many channels there are.
    pub fn channels(self) -> usize {
        match self {
            ColorSpace::Gray | ColorSpace::GrayF16 => 1,
            ColorSpace::Rgb | ColorSpace::Bgr => 3,
        }
    }
}

/// The pixels of an image, row by row.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// A byte for each.
    Gray(Vec<u8>),
    /// Red, green and blue for each.
    Rgb(Vec<u8>),
    /// A float for each.
    GrayF16(Vec<f32>),
}

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Pixels,
}

/// The share of red, green and blue in gray, of 65,536: those of ITU-R 601, as everybody rounds them.
const LUMA: [u32; 3] = [19_595, 38_470, 7_471];

impl Image {
    /// A picture of so many pixels; `None` if there are more or fewer.
    ///
    /// ```
    /// use palettizer_runtime::{Image, Pixels};
    ///
    /// assert!(Image::new(2, 1, Pixels::Rgb(vec![0, 0, 0, 255, 255, 255])).is_some());
    /// assert!(Image::new(2, 2, Pixels::Gray(vec![0, 255])).is_none());
    /// ```
    pub fn new(width: usize, height: usize, pixels: Pixels) -> Option<Self> {
        let (channels, found) = match &pixels {
            Pixels::Gray(values) => (1, values.len()),
            Pixels::Rgb(values) => (3, values.len()),
            Pixels::GrayF16(values) => (1, values.len()),
        };
        let fits = element_count(&[height, width, channels]) == Some(found);
        fits.then_some(Image {
            width,
            height,
            pixels,
        })
    }

    /// Its width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Its height.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Its pixels.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// Bytes of memory that the pixels take.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.pixels {
            Pixels::Gray(values) | Pixels::Rgb(values) => values.len() as u64,
            Pixels::GrayF16(values) => values.len() as u64 * 4,
        }
    }

    /// What a program that wants these channels sees. Colors become gray and gray becomes colors where it must be.
    pub fn to_tensor(&self, color: ColorSpace) -> Option<Tensor> {
        let planes: Vec<f32> = match color {
            ColorSpace::Gray => self.gray().iter().map(|&value| f32::from(value)).collect(),
            ColorSpace::GrayF16 => {
                let mut values = match &self.pixels {
                    Pixels::GrayF16(values) => values.clone(),
                    _ => self.gray().iter().map(|&value| f32::from(value)).collect(),
                };
                round_to_f16(&mut values);
                values
            }
            ColorSpace::Rgb => self.planes([0, 1, 2]),
            ColorSpace::Bgr => self.planes([2, 1, 0]),
        };
        let dtype = match color {
            ColorSpace::GrayF16 => Dtype::F16,
            _ => Dtype::F32,
        };
        Tensor::new(
            dtype,
            &[1, color.channels(), self.height, self.width],
            planes,
        )
    }

    fn gray(&self) -> Vec<u8> {
        match &self.pixels {
            Pixels::Gray(values) => values.clone(),
            Pixels::GrayF16(values) => values.iter().map(|&value| byte(value)).collect(),
            Pixels::Rgb(values) => {
                let luma = |[r, g, b]: &[u8; 3]| {
                    let parts = LUMA[0] * u32::from(*r) + LUMA[1] * u32::from(*g);
                    ((parts + LUMA[2] * u32::from(*b) + 0x8000) >> 16) as u8
                };
                values.as_chunks().0.iter().map(luma).collect()
            }
        }
    }

    /// One channel after the other, in this order of red, green and blue.
    fn planes(&self, order: [usize; 3]) -> Vec<f32> {
        match &self.pixels {
            Pixels::Rgb(values) => {
                let (pixels, _) = values.as_chunks::<3>();
                let plane =
                    |channel: usize| pixels.iter().map(move |pixel| f32::from(pixel[channel]));
                order.into_iter().flat_map(plane).collect()
            }
            _ => {
                let gray = self.gray();
                let plane = gray.iter().map(|&value| f32::from(value));
                order.into_iter().flat_map(|_| plane.clone()).collect()
            }
        }
    }

    /// The picture that a program's output is: rounded to the nearest of what 8 bits have; `None` if it has other channels.
    pub fn of_tensor(tensor: &Tensor, color: ColorSpace) -> Option<Self> {
        let floats = tensor.floats()?;
        let (height, width) = match *tensor.shape() {
            [1, channels, height, width] | [channels, height, width]
                if channels == color.channels() =>
            {
                (height, width)
            }
            _ => return None,
        };
        let pixels = match color {
            ColorSpace::Gray => Pixels::Gray(floats.iter().map(|&value| byte(value)).collect()),
            ColorSpace::GrayF16 => {
                let mut values = floats.to_vec();
                round_to_f16(&mut values);
                Pixels::GrayF16(values)
            }
            ColorSpace::Rgb | ColorSpace::Bgr => {
                let area = floats.len() / 3;
                let mut pixels = vec![0; floats.len()];
                for (at, plane) in floats.chunks(area.max(1)).enumerate() {
                    let channel = if color == ColorSpace::Rgb { at } else { 2 - at };
                    for (pixel, &value) in pixels.chunks_exact_mut(3).zip(plane) {
                        pixel[channel] = byte(value);
                    }
                }
                Pixels::Rgb(pixels)
            }
        };
        Image::new(width, height, pixels)
    }
}

/// The nearest of 0 to 255; 0 for what is no number.
fn byte(value: f32) -> u8 {
    value.round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_the_tensor_that_it_was() {
        let picture = Image::new(2, 2, Pixels::Rgb((0..12).map(|at| at * 20).collect())).unwrap();
        for color in [ColorSpace::Rgb, ColorSpace::Bgr] {
            let tensor = picture.to_tensor(color).unwrap();
            assert_eq!(tensor.shape(), [1, 3, 2, 2]);
            assert_eq!(Image::of_tensor(&tensor, color).unwrap(), picture);
        }
        let blue_first = picture.to_tensor(ColorSpace::Bgr).unwrap();
        assert_eq!(
            blue_first.floats().unwrap()[..4],
            [40.0, 100.0, 160.0, 220.0]
        );
        let gray = picture.to_tensor(ColorSpace::Gray).unwrap();
        assert_eq!(gray.shape(), [1, 1, 2, 2]);
        assert_eq!(gray.floats().unwrap()[0], 16.0);
    }

    #[test]
    fn what_8_bits_have_not_becomes_the_nearest() {
        let values = vec![-3.0, 0.5, 254.4, 1e9, f32::NAN, 3.0];
        let tensor = Tensor::new(Dtype::F32, &[1, 1, 2, 3], values).unwrap();
        let image = Image::of_tensor(&tensor, ColorSpace::Gray).unwrap();
        assert_eq!(*image.pixels(), Pixels::Gray(vec![0, 1, 254, 255, 0, 3]));
        assert_eq!((image.width(), image.height()), (3, 2));
        assert!(Image::of_tensor(&tensor, ColorSpace::Rgb).is_none());
    }
}
