//! Points of a plane, and what an image has there: its pixels, or a mixture of the four around a point.

use crate::call::Fault;
use crate::element::in_parts;

/// A number that no pixel has: outside of the image.
const OUTSIDE: u32 = u32::MAX;

/// How an image goes on beyond its edges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Beyond {
    /// With one value.
    Constant,
    /// With the pixel at the edge.
    Border,
    /// Mirrored at the middle of the pixel at the edge.
    Reflection,
    /// Mirrored at the edge.
    Symmetric,
}

/// A point: four pixels around it, and how far from the first it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pixels: [u32; 4],
    x: f32,
    y: f32,
    /// How fast the point moves in the image when its coordinates do: 0 where it cannot leave the image, -1 where it is mirrored.
    pub pace: [f32; 2],
}

/// The sizes of an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub height: usize,
    pub width: usize,
}

impl Plane {
    /// A plane whose pixels can be numbered.
    pub(super) fn of(height: usize, width: usize) -> Result<Self, Fault> {
        let pixels = height.checked_mul(width);
        match pixels {
            Some(pixels) if pixels < OUTSIDE as usize => Ok(Plane { height, width }),
            _ => Err(
                format!("an image of {height} × {width} pixels is too large to be sampled").into(),
            ),
        }
    }

    pub(super) fn pixels(self) -> usize {
        self.height * self.width
    }

    fn pixel(self, x: f64, y: f64) -> u32 {
        let inside = x >= 0.0 && y >= 0.0 && x < self.width as f64 && y < self.height as f64;
        if inside {
            (y as usize * self.width + x as usize) as u32
        } else {
            OUTSIDE
        }
    }

    /// The point at these coordinates, in pixels.
    pub(super) fn point(self, x: f64, y: f64, beyond: Beyond, nearest: bool) -> Point {
        let (x, pace_x) = folded(x, self.width, beyond);
        let (y, pace_y) = folded(y, self.height, beyond);
        if nearest {
            let pixel = self.pixel(x.round_ties_even(), y.round_ties_even());
            return Point {
                pixels: [pixel; 4],
                x: 0.0,
                y: 0.0,
                pace: [0.0; 2],
            };
        }
        let (left, top) = (x.floor(), y.floor());
        Point {
            pixels: [
                self.pixel(left, top),
                self.pixel(left + 1.0, top),
                self.pixel(left, top + 1.0),
                self.pixel(left + 1.0, top + 1.0),
            ],
            // where a coordinate is no number, so is the share of the pixels; but it points at none
            x: (x - left) as f32,
            y: (y - top) as f32,
            pace: [pace_x, pace_y],
        }
    }

    /// A point that is outside of the image.
    pub(super) fn outside() -> Point {
        Point {
            pixels: [OUTSIDE; 4],
            x: 0.0,
            y: 0.0,
            pace: [0.0; 2],
        }
    }
}

/// A coordinate brought back to the image, and the pace of it.
fn folded(at: f64, size: usize, beyond: Beyond) -> (f64, f32) {
    let last = size.saturating_sub(1) as f64;
    if !at.is_finite() {
        // nowhere: beside a constant; else at the beginning
        return if beyond == Beyond::Constant {
            (-2.0, 0.0)
        } else {
            (0.0, 0.0)
        };
    }
    let (at, pace) = match beyond {
        Beyond::Constant => return (at, 1.0),
        Beyond::Border => (at, 1.0),
        Beyond::Reflection => mirrored(at, 0.0, last),
        Beyond::Symmetric => mirrored(at, -0.5, last + 0.5),
    };
    if at <= 0.0 {
        (0.0, 0.0)
    } else if at >= last {
        (last, 0.0)
    } else {
        (at, pace)
    }
}

/// A coordinate mirrored at both ends as often as it takes.
fn mirrored(at: f64, low: f64, high: f64) -> (f64, f32) {
    let span = high - low;
    if span <= 0.0 {
        return (0.0, 0.0);
    }
    let (distance, pace) = if at < low {
        (low - at, -1.0)
    } else {
        (at - low, 1.0)
    };
    let rest = distance % span;
    if (distance / span).floor() % 2.0 == 0.0 {
        (low + rest, pace)
    } else {
        (high - rest, -pace)
    }
}

impl Point {
    fn shares(&self) -> [f32; 4] {
        let (x, y) = (self.x, self.y);
        [(1.0 - x) * (1.0 - y), x * (1.0 - y), (1.0 - x) * y, x * y]
    }

    /// What an image has at the four pixels.
    fn around(&self, image: &[f32], outside: f32) -> [f32; 4] {
        self.pixels
            .map(|pixel| image.get(pixel as usize).copied().unwrap_or(outside))
    }

    /// What an image has here.
    fn value(&self, image: &[f32], outside: f32) -> f32 {
        let mut sum = 0.0;
        for (value, share) in self.around(image, outside).into_iter().zip(self.shares()) {
            // nothing of a pixel that has no share, be it infinite
            sum += if share == 0.0 { 0.0 } else { value * share };
        }
        sum
    }

    /// How what an image has here changes with the coordinates.
    fn slope(&self, image: &[f32], outside: f32) -> [f32; 2] {
        let [a, b, c, d] = self.around(image, outside);
        [
            self.pace[0] * ((b - a) * (1.0 - self.y) + (d - c) * self.y),
            self.pace[1] * ((c - a) * (1.0 - self.x) + (d - b) * self.x),
        ]
    }
}

/// Images sampled: `points` of those from `image`, which are so many pixels each, for each of the outputs.
pub(super) fn sampled(
    images: &[f32],
    pixels: usize,
    outputs: &mut [f32],
    points: &[Point],
    outside: f32,
) {
    in_parts(outputs, points.len(), |(number, out)| {
        let image = &images[number * pixels..][..pixels];
        out.iter_mut()
            .zip(points)
            .for_each(|(out, point)| *out = point.value(image, outside));
    });
}

/// Adds the gradients of outputs to those of the images that were sampled.
pub(super) fn unsampled(upstream: &[f32], gradients: &mut [f32], pixels: usize, points: &[Point]) {
    in_parts(gradients, pixels, |(number, gradient)| {
        let upstream = &upstream[number * points.len()..][..points.len()];
        for (&upstream, point) in upstream.iter().zip(points) {
            for (pixel, share) in point.pixels.into_iter().zip(point.shares()) {
                if let Some(sum) = gradient.get_mut(pixel as usize) {
                    *sum += upstream * share;
                }
            }
        }
    });
}

/// The gradients of the points' coordinates, from those of all outputs of the same points.
pub(super) fn slopes(
    images: &[f32],
    pixels: usize,
    upstream: &[f32],
    points: &[Point],
    outside: f32,
) -> Vec<[f64; 2]> {
    let mut sums = vec![[0f64; 2]; points.len()];
    for (image, upstream) in images
        .chunks_exact(pixels.max(1))
        .zip(upstream.chunks_exact(points.len().max(1)))
    {
        for ((sum, point), &upstream) in sums.iter_mut().zip(points).zip(upstream) {
            let slope = point.slope(image, outside);
            sum[0] += f64::from(upstream * slope[0]);
            sum[1] += f64::from(upstream * slope[1]);
        }
    }
    sums
}
