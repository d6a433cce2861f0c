//! Boxes cut out of images, and each brought to one size.

use super::grid::{Sampling, sampling};
use super::points::{Beyond, Plane, Point, sampled, slopes, unsampled};
use crate::call::{Args, Call, Fault, Outcome};
use crate::grad::{Backward, Gradients};
use crate::tensor::Elements;
use palettizer_pipeline::config::Target;

/// Which numbers of a box are what: begin and end of the rows, then of the columns; or their middle and length.
struct Order {
    centers: bool,
    rows: [usize; 2],
    columns: [usize; 2],
}

/// What is cut out.
struct Cut<'a> {
    param: &'static str,
    /// The numbers of all boxes, `stride` for each, the coordinates the last of them.
    numbers: Vec<f32>,
    stride: usize,
    /// The image of each box; all images for each if there are none.
    images: Option<Vec<usize>>,
    x: &'a [f32],
    batches: usize,
    channels: usize,
    plane: Plane,
    order: Order,
    /// What the rows and the columns of a box are multiplied by.
    scale: [f64; 2],
    mode: Sampling,
    size: [usize; 2],
    outside: f32,
    beyond: Beyond,
    shape: Vec<usize>,
}

impl<'a> Cut<'a> {
    fn of(args: &'a Args<'_>) -> Result<Self, Fault> {
        let shape = args.tensor("x")?.shape();
        let [batches, channels, height, width] = *shape else {
            return Err(format!("x has the shape {shape:?}; expected four dimensions").into());
        };
        let order = match args.text("box_coordinate_mode")? {
            None | Some("CORNERS_HEIGHT_FIRST") => Order {
                centers: false,
                rows: [0, 2],
                columns: [1, 3],
            },
            Some("CORNERS_WIDTH_FIRST") => Order {
                centers: false,
                rows: [1, 3],
                columns: [0, 2],
            },
            Some("CENTER_SIZE_HEIGHT_FIRST") => Order {
                centers: true,
                rows: [0, 2],
                columns: [1, 3],
            },
            Some("CENTER_SIZE_WIDTH_FIRST") => Order {
                centers: true,
                rows: [1, 3],
                columns: [0, 2],
            },
            Some(other) => {
                return Err(format!("box_coordinate_mode is \"{other}\"; expected CORNERS_ or CENTER_SIZE_, and HEIGHT_FIRST or WIDTH_FIRST").into());
            }
        };
        let mut size = [0; 2];
        for (size, param) in size.iter_mut().zip(["target_height", "target_width"]) {
            let found = args.optional_int(param)?.unwrap_or(1);
            *size = usize::try_from(found)
                .map_err(|_| format!("{param} is {found}; expected none below 0"))?;
        }
        let spatial = f64::from(args.float_or("spatial_scale", 1.0)?);
        let normalized = args.bool_or("normalized_coordinates", false)?;
        let scale = [height, width].map(|dim| {
            if normalized {
                spatial * (dim as f64 - 1.0)
            } else {
                spatial
            }
        });
        let one_each = args.target >= Target::IOS17;
        let param = if one_each { "boxes" } else { "roi" };
        let (boxes, found) = (args.tensor(param)?, args.tensor(param)?.shape());
        let (count, stride) = match (one_each, found) {
            (true, &[count, 4]) => (count, 4),
            (false, &[count, 1, stride @ (4 | 5), 1, 1]) => (count, stride),
            _ => {
                let expected = if one_each {
                    "[N, 4]"
                } else {
                    "[N, 1, 4 or 5, 1, 1]"
                };
                return Err(format!("{param} has the shape {found:?}; expected {expected}").into());
            }
        };
        let numbers: Vec<f32> = match boxes.elements() {
            Elements::Floats(values) => values.to_vec(),
            Elements::Ints(values) => values.iter().map(|&value| value as f32).collect(),
            _ => return Err(crate::call::wrong(param, boxes, "numbers")),
        };
        let images = if one_each {
            Some(match args.optional_ints("box_indices")? {
                Some(indices) => indices.into_iter().map(|index| index as f64).collect(),
                None => (0..count).map(|at| at as f64).collect::<Vec<f64>>(),
            })
        } else {
            (stride == 5).then(|| numbers.chunks(5).map(|roi| f64::from(roi[0])).collect())
        };
        let images = images
            .map(|images| checked(&images, count, batches))
            .transpose()?;
        let crops = match (one_each, &images) {
            (true, _) => vec![count, channels],
            (false, Some(_)) => vec![count, 1, channels],
            (false, None) => vec![count, batches, channels],
        };
        Ok(Cut {
            param,
            numbers,
            stride,
            images,
            x: args.floats("x")?,
            batches,
            channels,
            plane: Plane::of(height, width)?,
            order,
            scale,
            mode: sampling(args)?,
            size,
            outside: args.float_or("pad_value", 0.0)?,
            // iOS 15 knows no value for what is beyond the image
            beyond: if args.target >= Target::IOS16 {
                Beyond::Constant
            } else {
                Beyond::Border
            },
            shape: [&crops[..], &size].concat(),
        })
    }

    /// The two numbers of a box on an axis: where it begins, and how far away it ends.
    fn side(&self, number: usize, axis: usize) -> [f64; 2] {
        let places = if axis == 0 {
            self.order.rows
        } else {
            self.order.columns
        };
        let first = (number + 1) * self.stride - 4;
        let [one, other] =
            places.map(|place| f64::from(self.numbers[first + place]) * self.scale[axis]);
        if self.order.centers {
            [one - other / 2.0, other]
        } else {
            [one, other - one]
        }
    }

    /// The points of a box: rows, then columns.
    fn points(&self, number: usize) -> Vec<Point> {
        let positions = |axis: usize| -> Vec<f64> {
            let [begin, length] = self.side(number, axis);
            let count = self.size[axis];
            let points = (0..count).map(|at| self.mode.point(at, count, length));
            points
                .map(|point| begin + point.share * length + point.shift)
                .collect()
        };
        let (rows, columns) = (positions(0), positions(1));
        let (height, width) = (self.plane.height as f64, self.plane.width as f64);
        let point = |x: f64, y: f64| {
            let inside = (0.0..=height - 1.0).contains(&y) && (0.0..=width - 1.0).contains(&x);
            if inside || self.beyond == Beyond::Border {
                self.plane.point(x, y, self.beyond, false)
            } else {
                Plane::outside()
            }
        };
        rows.iter()
            .flat_map(|&y| columns.iter().map(move |&x| (x, y)))
            .map(|(x, y)| point(x, y))
            .collect()
    }

    /// The first image of a box, and how many images it has.
    fn of_box(&self, number: usize) -> [usize; 2] {
        match &self.images {
            Some(images) => [images[number], 1],
            None => [0, self.batches],
        }
    }

    /// Elements of the channels of one image, and of the crops of one box.
    fn sizes(&self, number: usize) -> [usize; 2] {
        let crop = self.size[0] * self.size[1];
        [
            self.channels * self.plane.pixels(),
            self.of_box(number)[1] * self.channels * crop,
        ]
    }
}

/// Numbers of images, each of which must be there.
fn checked(images: &[f64], count: usize, batches: usize) -> Result<Vec<usize>, Fault> {
    if images.len() != count {
        return Err(format!(
            "box_indices has {} elements for {count} boxes",
            images.len()
        )
        .into());
    }
    let whole = |&image: &f64| {
        let there = image >= 0.0 && image < batches as f64 && image.fract() == 0.0;
        if there {
            Ok(image as usize)
        } else {
            Err(format!("a box is of image {image}; x has {batches}").into())
        }
    };
    images.iter().map(whole).collect()
}

pub(super) fn crop_resize(call: &mut Call<'_>) -> Outcome {
    let cut = Cut::of(call)?;
    let mut out: Vec<f32> = call.zeros(&cut.shape)?;
    if !out.is_empty() {
        let points = (cut.size[0] * cut.size[1]) as u64;
        call.budget
            .ask(points.saturating_mul(size_of::<Point>() as u64))?;
        let crops = cut.sizes(0)[1];
        for (number, out) in out.chunks_mut(crops).enumerate() {
            let images = &cut.x[cut.of_box(number)[0] * cut.sizes(number)[0]..];
            sampled(
                images,
                cut.plane.pixels(),
                out,
                &cut.points(number),
                cut.outside,
            );
        }
    }
    call.output(&cut.shape, out)
}

pub(super) fn crop_resize_backward(call: &Backward<'_>) -> Result<Gradients, Fault> {
    let cut = Cut::of(call)?;
    let upstream = call.upstream()?;
    let pixels = cut.plane.pixels();
    let mut of_x = vec![0.0; cut.x.len()];
    let mut of_boxes = vec![0.0; cut.numbers.len()];
    if upstream.is_empty() {
        return Ok(vec![("x", 0, of_x)]);
    }
    for (number, upstream) in upstream.chunks(cut.sizes(0)[1]).enumerate() {
        let points = cut.points(number);
        let ([first, count], [image, _]) = (cut.of_box(number), cut.sizes(number));
        let images = first * image..(first + count) * image;
        unsampled(upstream, &mut of_x[images.clone()], pixels, &points);
        let slopes = slopes(&cut.x[images], pixels, upstream, &points, cut.outside);
        // how the gradient of a point is shared by what its box begins with and by how long it is
        for (axis, places) in [cut.order.rows, cut.order.columns].into_iter().enumerate() {
            let (length, count) = (cut.side(number, axis)[1], cut.size[axis]);
            let (mut begin, mut of_length) = (0.0, 0.0);
            for (at, slope) in slopes.iter().enumerate() {
                let at = if axis == 0 {
                    at / cut.size[1]
                } else {
                    at % cut.size[1]
                };
                let slope = slope[1 - axis] * cut.scale[axis];
                begin += slope;
                of_length += slope * cut.mode.point(at, count, length).share;
            }
            let pair = if cut.order.centers {
                [begin, of_length - begin / 2.0]
            } else {
                [begin - of_length, of_length]
            };
            for (place, gradient) in places.into_iter().zip(pair) {
                of_boxes[(number + 1) * cut.stride - 4 + place] = gradient as f32;
            }
        }
    }
    let param = if cut.param == "roi" { "roi" } else { "boxes" };
    Ok(vec![("x", 0, of_x), (param, 0, of_boxes)])
}
