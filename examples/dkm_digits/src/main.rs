//! Trains a small network on handwritten digits with candle, in float, and then on to one bit for each weight.
//!
//! ```sh
//! cargo run --release --manifest-path examples/dkm_digits/Cargo.toml
//! ```
//!
//! What is of use elsewhere is [`SoftWeight`]: it puts differentiable k-means into candle's graph, as an operation of one
//! tensor. `palettizer::dkm` itself knows nothing of candle.
//!
//! The images (`digits.bin`, made by `scripts/digits.py`) are those of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten
//! Digits, UCI Machine Learning Repository, CC BY 4.0.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp1, D, Device, Error, Layout, Result, Shape, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use palettizer::dkm::{DkmConfig, DkmPalettizer, DkmSpec, Nbits};
use palettizer::safetensors::Checkpoint;
use palettizer::{Fate, SaveOptions};

const PIXELS: usize = 64;
const TRAINING: usize = 1437;
const BATCH: usize = 64;
/// Outputs and inputs of the layers.
const LAYERS: [(usize, usize); 3] = [(128, PIXELS), (128, 128), (10, 128)];

type Palettizer = Arc<Mutex<DkmPalettizer>>;

fn locked(palettizer: &Palettizer) -> MutexGuard<'_, DkmPalettizer> {
    palettizer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A weight's soft form as an operation of candle.
struct SoftWeight {
    palettizer: Palettizer,
    name: String,
}

impl CustomOp1 for SoftWeight {
    fn name(&self) -> &'static str {
        "soft-weight"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or_else(|| Error::Msg("a weight must be contiguous".to_owned()))?;
        let values = &storage.as_slice::<f32>()?[start..end];
        let mut soft = vec![0.0; values.len()];
        locked(&self.palettizer)
            .forward(&self.name, values, &mut soft)
            .map_err(Error::wrap)?;
        Ok((CpuStorage::F32(soft), layout.shape().clone()))
    }

    fn bwd(&self, weight: &Tensor, _soft: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (values, grad) = (numbers(weight)?, numbers(grad)?);
        let mut back = vec![0.0; values.len()];
        locked(&self.palettizer)
            .backward(&self.name, &values, &grad, &mut back)
            .map_err(Error::wrap)?;
        Tensor::from_vec(back, weight.shape(), weight.device()).map(Some)
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

/// Three linear layers with ReLU between them.
struct Network {
    weights: Vec<Var>,
    biases: Vec<Var>,
}

impl Network {
    fn new(random: &mut Random) -> Result<Self> {
        let mut uniform = |shape: &[usize], inputs: usize| {
            let bound = 1.0 / (inputs as f32).sqrt();
            let count = shape.iter().product();
            let values: Vec<f32> = (0..count)
                .map(|_| bound * (2.0 * random.unit() - 1.0))
                .collect();
            Var::from_vec(values, shape, &Device::Cpu)
        };
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for (outputs, inputs) in LAYERS {
            weights.push(uniform(&[outputs, inputs], inputs)?);
            biases.push(uniform(&[outputs], inputs)?);
        }
        Ok(Network { weights, biases })
    }

    fn name(layer: usize) -> String {
        format!("layers.{layer}.weight")
    }

    /// The scores of images, with other tensors in the place of the weights.
    fn scores(&self, weights: &[Tensor], images: &Tensor) -> Result<Tensor> {
        let mut x = images.clone();
        for (layer, (weight, bias)) in weights.iter().zip(&self.biases).enumerate() {
            x = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
            if layer + 1 < weights.len() {
                x = x.relu()?;
            }
        }
        Ok(x)
    }

    fn plain(&self) -> Vec<Tensor> {
        let weights = self.weights.iter();
        weights.map(|weight| weight.as_tensor().clone()).collect()
    }

    fn soft(&self, palettizer: &Palettizer) -> Result<Vec<Tensor>> {
        let weights = self.weights.iter().enumerate();
        let soft = weights.map(|(layer, weight)| {
            weight.apply_op1(SoftWeight {
                palettizer: palettizer.clone(),
                name: Self::name(layer),
            })
        });
        soft.collect()
    }

    fn hard(&self, palettizer: &Palettizer) -> Result<Vec<Tensor>> {
        let weights = self.weights.iter().enumerate();
        let hard = weights.map(|(layer, weight)| {
            let values = numbers(weight)?;
            let mut out = values.clone();
            locked(palettizer)
                .assign(&Self::name(layer), &values, &mut out)
                .map_err(Error::wrap)?;
            Tensor::from_vec(out, weight.shape(), weight.device())
        });
        hard.collect()
    }

    /// Trains with Adam and a falling rate.
    fn train(
        &self,
        data: &Digits,
        random: &mut Random,
        (epochs, rate): (usize, f64),
        palettizer: Option<&Palettizer>,
    ) -> Result<()> {
        let all = [self.weights.as_slice(), &self.biases].concat();
        let mut optimizer = AdamW::new(
            all,
            ParamsAdamW {
                lr: rate,
                weight_decay: 0.0,
                ..ParamsAdamW::default()
            },
        )?;
        let steps = epochs * (TRAINING / BATCH);
        let mut order: Vec<usize> = (0..TRAINING).collect();
        for step in 0..steps {
            let at = step % (TRAINING / BATCH);
            if at == 0 {
                random.shuffle(&mut order);
            }
            let (images, labels) = data.batch(&order[at * BATCH..(at + 1) * BATCH])?;
            let weights = match palettizer {
                Some(palettizer) => self.soft(palettizer)?,
                None => self.plain(),
            };
            let loss = candle_nn::loss::cross_entropy(&self.scores(&weights, &images)?, &labels)?;
            let fallen = (std::f64::consts::PI * step as f64 / steps as f64).cos();
            optimizer.set_learning_rate(rate * (1.0 + fallen) / 2.0);
            optimizer.backward_step(&loss)?;
            if let Some(palettizer) = palettizer {
                locked(palettizer).step();
            }
        }
        Ok(())
    }

    /// Right answers on the test images, in percent.
    fn accuracy(&self, data: &Digits, weights: &[Tensor]) -> Result<f64> {
        let test: Vec<usize> = (TRAINING..data.labels.len()).collect();
        let (images, labels) = data.batch(&test)?;
        let answers = self.scores(weights, &images)?.argmax(D::Minus1)?;
        let right = answers.eq(&labels)?.to_vec1::<u8>()?;
        let count = right.iter().filter(|&&right| right == 1).count();
        Ok(100.0 * count as f64 / test.len() as f64)
    }
}

struct Digits {
    images: Vec<f32>,
    labels: Vec<u32>,
}

impl Digits {
    fn load() -> Self {
        let bytes = include_bytes!("../digits.bin").chunks_exact(1 + PIXELS);
        Digits {
            labels: bytes.clone().map(|row| u32::from(row[0])).collect(),
            images: bytes
                .flat_map(|row| &row[1..])
                .map(|&pixel| f32::from(pixel) / 16.0)
                .collect(),
        }
    }

    fn batch(&self, of: &[usize]) -> Result<(Tensor, Tensor)> {
        let image = |&at: &usize| &self.images[at * PIXELS..(at + 1) * PIXELS];
        let images: Vec<f32> = of.iter().flat_map(image).copied().collect();
        let labels: Vec<u32> = of.iter().map(|&at| self.labels[at]).collect();
        Ok((
            Tensor::from_vec(images, (of.len(), PIXELS), &Device::Cpu)?,
            Tensor::from_vec(labels, of.len(), &Device::Cpu)?,
        ))
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): candle's own numbers have no seed on a CPU.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least 0 and less than 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            order.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

/// A trained network, its palettizer, and its right answers: in float, seeded, and trained on.
struct Run {
    network: Network,
    palettizer: Palettizer,
    accuracies: [f64; 3],
}

fn run(data: &Digits, seed: u64) -> std::result::Result<Run, Box<dyn std::error::Error>> {
    let mut random = Random(seed);
    let network = Network::new(&mut random)?;
    network.train(data, &mut random, (25, 2e-3), None)?;
    let float = network.accuracy(data, &network.plain())?;

    // One bit for the two large weights; the last, of 1280 elements, is below the threshold.
    let config = DkmConfig {
        spec: DkmSpec {
            nbits: Nbits::B1,
            ..DkmSpec::default()
        },
        ..DkmConfig::default()
    };
    let layers = LAYERS.into_iter().enumerate();
    let shapes = layers.map(|(layer, (outputs, inputs))| {
        (Network::name(layer), [outputs, inputs], config.clone())
    });
    let palettizer = Arc::new(Mutex::new(DkmPalettizer::new(shapes)?));
    let seeded = network.accuracy(data, &network.hard(&palettizer)?)?;
    network.train(data, &mut random, (10, 1e-3), Some(&palettizer))?;
    let trained = network.accuracy(data, &network.hard(&palettizer)?)?;
    Ok(Run {
        network,
        palettizer,
        accuracies: [float, seeded, trained],
    })
}

const SEEDS: u64 = 5;
const ROWS: [&str; 3] = [
    "float",
    "1 bit, k-means of the float weights",
    "1 bit, differentiable k-means, 10 epochs",
];

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let data = Digits::load();
    let runs: Vec<Run> = (0..SEEDS)
        .map(|seed| run(&data, seed))
        .collect::<std::result::Result<_, _>>()?;
    println!(
        "{:<42} {:>6}   of {SEEDS} seeds",
        "right answers, %", "mean"
    );
    let mut means = [0.0; 3];
    for (row, (what, mean)) in ROWS.iter().zip(&mut means).enumerate() {
        let of: Vec<f64> = runs.iter().map(|run| run.accuracies[row]).collect();
        *mean = of.iter().sum::<f64>() / of.len() as f64;
        println!("{what:<42} {mean:>6.2}   {of:.2?}");
    }

    let Some(Run {
        network,
        palettizer,
        ..
    }) = runs.first()
    else {
        return Ok(());
    };
    let weights: Vec<Vec<f32>> = network
        .weights
        .iter()
        .map(|weight| numbers(weight))
        .collect::<Result<_>>()?;
    let named = weights.iter().enumerate();
    let done = locked(palettizer)
        .finalize(named.map(|(layer, values)| (Network::name(layer), values.as_slice())))?;
    println!();
    for row in &done.report.weights {
        let fate = match &row.fate {
            Fate::Compressed(palette) => {
                format!("{} bit, {} bytes", palette.nbits, palette.bytes_after)
            }
            Fate::Skipped { reason, .. } => reason.clone(),
        };
        println!("{:<16} {:?}: {fate}", row.name, row.shape);
    }
    let out = std::env::temp_dir().join("dkm_digits.safetensors");
    let options = SaveOptions::overwriting(true);
    Checkpoint::write(&out, &done.contents, &Default::default(), options)?;
    println!(
        "\n{} → {} bytes of weights, in {}",
        done.report.bytes_before,
        done.report.bytes_after,
        out.display()
    );
    if means[2] < 93.4 {
        return Err(format!(
            "1 bit reached {:.2} %; at least 93.4 were expected",
            means[2]
        )
        .into());
    }
    Ok(())
}
