//! Images sampled where coordinates say, or a linear transform of the output's coordinates.

use super::points::{Beyond, Plane, Point, sampled, slopes, unsampled};
use crate::call::{Args, Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};
use crate::tensor::Elements;

/// What coordinates mean.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Coordinates {
    Pixels,
    MinusOneToOne,
    ZeroToOne,
}

/// What both operations have: four dimensions, and how the image is sampled.
struct Sampler {
    batches: usize,
    channels: usize,
    plane: Plane,
    coordinates: Coordinates,
    align: bool,
    nearest: bool,
    beyond: Beyond,
    outside: f32,
}

impl Sampler {
    fn of(args: &Args<'_>) -> Result<Self, Fault> {
        let shape = args.tensor("x")?.shape();
        let [batches, channels, height, width] = *shape else {
            return Err(format!("x has the shape {shape:?}; expected four dimensions").into());
        };
        let word = |param: &str| -> Result<String, Fault> {
            let word = args.text(param)?;
            Ok(word
                .ok_or_else(|| format!("parameter {param} is missing"))?
                .to_ascii_lowercase())
        };
        let unknown = |param: &str, found: &str| {
            Fault::from(format!("{param} is \"{found}\", which is not known"))
        };
        let nearest = match word("sampling_mode")?.as_str() {
            "bilinear" => false,
            "nearest" => true,
            other => return Err(unknown("sampling_mode", other)),
        };
        let beyond = match word("padding_mode")?.as_str() {
            "constant" => Beyond::Constant,
            "border" => Beyond::Border,
            "reflection" => Beyond::Reflection,
            "symmetric" => Beyond::Symmetric,
            other => return Err(unknown("padding_mode", other)),
        };
        let coordinates = match word("coordinates_mode")?.as_str() {
            "unnormalized" => Coordinates::Pixels,
            "normalized_minus_one_to_one" => Coordinates::MinusOneToOne,
            "normalized_zero_to_one" => Coordinates::ZeroToOne,
            other => return Err(unknown("coordinates_mode", other)),
        };
        Ok(Sampler {
            batches,
            channels,
            plane: Plane::of(height, width)?,
            coordinates,
            align: args.bool_or("align_corners", true)?,
            nearest,
            beyond,
            outside: args.float_or("padding_value", 0.0)?,
        })
    }

    /// The factor and the summand that make pixels of a coordinate on an axis.
    fn to_pixels(&self, size: usize) -> [f64; 2] {
        let size = size as f64;
        // from 0 to 1
        let [factor, summand] = if self.align {
            [size - 1.0, 0.0]
        } else {
            [size, -0.5]
        };
        match self.coordinates {
            Coordinates::Pixels => [1.0, 0.0],
            Coordinates::ZeroToOne => [factor, summand],
            Coordinates::MinusOneToOne => [factor / 2.0, factor / 2.0 + summand],
        }
    }

    fn point(&self, x: f64, y: f64) -> Point {
        let ([fx, sx], [fy, sy]) = (
            self.to_pixels(self.plane.width),
            self.to_pixels(self.plane.height),
        );
        self.plane
            .point(x * fx + sx, y * fy + sy, self.beyond, self.nearest)
    }

    /// The coordinate of a pixel on an axis of the output. A single pixel that is to lie at both corners lies between them.
    fn coordinate(&self, at: usize, size: usize) -> f64 {
        let [factor, summand] = self.to_pixels(size);
        if factor == 0.0 {
            return if self.coordinates == Coordinates::MinusOneToOne {
                0.0
            } else {
                0.5
            };
        }
        (at as f64 - summand) / factor
    }

    fn shape(&self, height: usize, width: usize) -> [usize; 4] {
        [self.batches, self.channels, height, width]
    }

    /// Samples all images at the points of each batch.
    fn run(
        &self,
        call: &Call<'_>,
        shape: &[usize],
        points: impl Fn(usize) -> Result<Vec<Point>, Fault>,
    ) -> Outcome {
        let x = call.floats("x")?;
        let mut out: Vec<f32> = call.zeros(shape)?;
        if out.is_empty() {
            return call.output(shape, out);
        }
        let batch = out.len() / self.batches;
        let pixels = self.plane.pixels();
        for (number, out) in out.chunks_mut(batch).enumerate() {
            let images = &x[number * self.channels * pixels..][..self.channels * pixels];
            sampled(images, pixels, out, &points(number)?, self.outside);
        }
        call.output(shape, out)
    }

    /// The gradient of `x`, and of the coordinates of each point of each batch, which a function is given.
    fn backward(
        &self,
        call: &Backward<'_>,
        points: impl Fn(usize) -> Result<Vec<Point>, Fault>,
        mut coordinates: impl FnMut(usize, Vec<[f64; 2]>),
    ) -> Result<Vec<f32>, Fault> {
        let (x, upstream) = (call.floats("x")?, call.upstream()?);
        let mut gradient = vec![0.0; x.len()];
        if upstream.is_empty() {
            return Ok(gradient);
        }
        let (batch, pixels) = (upstream.len() / self.batches, self.plane.pixels());
        let [fx, fy] = [self.plane.width, self.plane.height].map(|size| self.to_pixels(size)[0]);
        for (number, upstream) in upstream.chunks(batch).enumerate() {
            let points = points(number)?;
            let images = number * self.channels * pixels..(number + 1) * self.channels * pixels;
            unsampled(upstream, &mut gradient[images.clone()], pixels, &points);
            let slopes = slopes(&x[images], pixels, upstream, &points, self.outside);
            coordinates(
                number,
                slopes.iter().map(|&[x, y]| [x * fx, y * fy]).collect(),
            );
        }
        Ok(gradient)
    }
}

/// How many points a batch has; their list must fit into memory.
fn room(call: &Call<'_>, points: usize) -> Result<(), Fault> {
    call.budget
        .ask((points as u64).saturating_mul(size_of::<Point>() as u64))
}

/// The height and width of the coordinates, and the numbers themselves.
fn coordinates(args: &Args<'_>, batches: usize) -> Result<(usize, usize, Vec<f32>), Fault> {
    let tensor = args.tensor("coordinates")?;
    let shape = tensor.shape();
    let [same, height, width, 2] = *shape else {
        return Err(format!(
            "coordinates has the shape {shape:?}; expected four dimensions, the last of 2"
        )
        .into());
    };
    if same != batches {
        return Err(format!("coordinates has {same} batches, x {batches}").into());
    }
    let numbers = match tensor.elements() {
        Elements::Floats(values) => values.to_vec(),
        Elements::Ints(values) => values.iter().map(|&value| value as f32).collect(),
        _ => return Err(crate::call::wrong("coordinates", tensor, "numbers")),
    };
    Ok((height, width, numbers))
}

fn listed(sampler: &Sampler, numbers: &[f32], batch: usize, points: usize) -> Vec<Point> {
    let numbers = &numbers[batch * points * 2..][..points * 2];
    let pairs = numbers.as_chunks::<2>().0.iter();
    pairs
        .map(|&[x, y]| sampler.point(x.into(), y.into()))
        .collect()
}

pub(super) fn resample(call: &mut Call<'_>) -> Outcome {
    let sampler = Sampler::of(call)?;
    let (height, width, numbers) = coordinates(call, sampler.batches)?;
    let points = height * width;
    room(call, points)?;
    sampler.run(call, &sampler.shape(height, width), |batch| {
        Ok(listed(&sampler, &numbers, batch, points))
    })
}

pub(super) fn resample_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let sampler = Sampler::of(call)?;
    let (height, width, numbers) = coordinates(call, sampler.batches)?;
    let points = height * width;
    let mut of_coordinates = vec![0.0; numbers.len()];
    let x = sampler.backward(
        call,
        |batch| Ok(listed(&sampler, &numbers, batch, points)),
        |batch, slopes| {
            let out = of_coordinates[batch * points * 2..].iter_mut();
            out.zip(slopes.iter().flatten())
                .for_each(|(out, &slope)| *out = slope as f32);
        },
    )?;
    Ok(vec![("x", 0, x), ("coordinates", 0, of_coordinates)])
}

/// A transform for each batch, or one for all, and the size of the output.
struct Transform<'a> {
    sampler: Sampler,
    matrices: &'a [f32],
    height: usize,
    width: usize,
}

impl<'a> Transform<'a> {
    fn of(args: &'a Args<'_>) -> Result<Self, Fault> {
        let sampler = Sampler::of(args)?;
        let shape = args.tensor("transform_matrix")?.shape();
        match *shape {
            [1, 6] => {}
            [batches, 6] if batches == sampler.batches => {}
            _ => {
                let batches = sampler.batches;
                return Err(format!(
                    "transform_matrix has the shape {shape:?}; expected [1, 6] or [{batches}, 6]"
                )
                .into());
            }
        }
        let size = |param: &str| -> Result<usize, Fault> {
            let size = args.int(param)?;
            usize::try_from(size)
                .map_err(|_| format!("{param} is {size}; expected none below 0").into())
        };
        Ok(Transform {
            matrices: args.floats("transform_matrix")?,
            height: size("output_height")?,
            width: size("output_width")?,
            sampler,
        })
    }

    /// The number of a batch' matrix.
    fn matrix(&self, batch: usize) -> usize {
        if self.matrices.len() == 6 { 0 } else { batch }
    }

    /// The coordinates of the output's pixels.
    fn grid(&self) -> Vec<[f64; 2]> {
        let x: Vec<f64> = (0..self.width)
            .map(|at| self.sampler.coordinate(at, self.width))
            .collect();
        let rows = (0..self.height).map(|at| self.sampler.coordinate(at, self.height));
        rows.flat_map(|y| x.iter().map(move |&x| [x, y])).collect()
    }

    fn points(&self, batch: usize, grid: &[[f64; 2]]) -> Vec<Point> {
        let at = self.matrix(batch) * 6;
        let m: [f64; 6] = std::array::from_fn(|number| f64::from(self.matrices[at + number]));
        let point = |&[x, y]: &[f64; 2]| {
            self.sampler
                .point(m[0] * x + m[1] * y + m[2], m[3] * x + m[4] * y + m[5])
        };
        grid.iter().map(point).collect()
    }
}

pub(super) fn affine(call: &mut Call<'_>) -> Outcome {
    let transform = Transform::of(call)?;
    let shape = transform.sampler.shape(transform.height, transform.width);
    if call.count(&shape)? == 0 {
        return call.output(&shape, Vec::<f32>::new());
    }
    room(call, transform.height * transform.width)?;
    let grid = transform.grid();
    transform
        .sampler
        .run(call, &shape, |batch| Ok(transform.points(batch, &grid)))
}

pub(super) fn affine_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let transform = Transform::of(call)?;
    let grid = if call.upstream()?.is_empty() {
        Vec::new()
    } else {
        transform.grid()
    };
    let mut sums = vec![0f64; transform.matrices.len()];
    let x = transform.sampler.backward(
        call,
        |batch| Ok(transform.points(batch, &grid)),
        |batch, slopes| {
            let sums = &mut sums[transform.matrix(batch) * 6..][..6];
            for (&[x, y], slope) in grid.iter().zip(&slopes) {
                for (row, slope) in sums.chunks_mut(3).zip(slope) {
                    row.iter_mut()
                        .zip([x, y, 1.0])
                        .for_each(|(sum, factor)| *sum += slope * factor);
                }
            }
        },
    )?;
    let of_matrices = sums.into_iter().map(|sum| sum as f32).collect();
    Ok(vec![("x", 0, x), ("transform_matrix", 0, of_matrices)])
}
