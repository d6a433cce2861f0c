//! One weight in training: its centroids from step to step.

use palettizer_palette::{Dkm, DkmConstants, DkmForward, Palette, Refusal};

use super::DkmWeightState;

#[derive(Clone, Debug)]
pub(super) struct Weight {
    pub(super) dkm: Dkm,
    pub(super) milestone: u64,
    pub(super) state: DkmWeightState,
    /// What the last forward left for its backward; empty before one.
    saved: Vec<f32>,
    /// Where the noise of this weight starts: for each another.
    noise_seed: u64,
}

/// Whether a backward is possible.
pub(super) enum Backward {
    Done,
    NoForward,
    OtherValues,
}

impl Weight {
    pub(super) fn new(name: &str, dkm: Dkm, milestone: u64) -> Self {
        let bytes = name.bytes().map(u64::from);
        Weight {
            noise_seed: fingerprint(bytes).wrapping_add(dkm.spec().seed),
            dkm,
            milestone,
            state: DkmWeightState::default(),
            saved: Vec::new(),
        }
    }

    /// Whether it is palettized after so many steps.
    pub(super) fn enabled(&self, steps: u64) -> bool {
        self.milestone == 0 || steps > self.milestone
    }

    /// Fixes the per-channel scale, if there is one, by the first values that are seen.
    pub(super) fn fix_scale(&mut self, values: &[f32]) -> Result<(), Refusal> {
        if self.state.scale.is_empty() {
            self.state.scale = self.dkm.channel_scale(values)?.unwrap_or_default();
        }
        Ok(())
    }

    /// The soft weight. Centroids move on once for all forwards of the same values.
    pub(super) fn forward(&mut self, values: &[f32], out: &mut [f32]) -> Result<(), Refusal> {
        self.fix_scale(values)?;
        let seen = fingerprint(values.iter().map(|value| u64::from(value.to_bits())));
        let state = &self.state;
        let (start, moves) = match state.centroids.is_empty() {
            true => (self.dkm.seed(values, self.scale(), None)?, 0),
            false if seen == state.seen => (state.start.clone(), state.moves),
            false => (state.centroids.clone(), state.moves + 1),
        };
        // Found once. A state of before this was kept has none.
        let temperatures = match self.state.temperatures.is_empty() {
            true => self.dkm.temperatures(values, &start, self.scale())?,
            false => self.state.temperatures.clone(),
        };
        let mut next = start.clone();
        let mut saved = vec![0.0; self.dkm.saved_len()];
        let forward = DkmForward {
            out,
            next: &mut next,
            saved: &mut saved,
        };
        let constants = self.constants(&temperatures, moves);
        self.dkm.forward(values, &start, constants, forward)?;
        self.saved = saved;
        self.state = DkmWeightState {
            centroids: next,
            start,
            scale: std::mem::take(&mut self.state.scale),
            temperatures,
            seen,
            moves,
        };
        Ok(())
    }

    pub(super) fn backward(
        &self,
        values: &[f32],
        grad: &[f32],
        out: &mut [f32],
    ) -> Result<Backward, Refusal> {
        if self.saved.is_empty() {
            return Ok(Backward::NoForward);
        }
        if fingerprint(values.iter().map(|value| u64::from(value.to_bits()))) != self.state.seen {
            return Ok(Backward::OtherValues);
        }
        let constants = self.constants(&self.state.temperatures, self.state.moves);
        self.dkm
            .backward(values, constants, &self.saved, grad, out)?;
        Ok(Backward::Done)
    }

    /// The weight of evaluation. One that was never used in training takes its centroids from k-means.
    pub(super) fn assign(&self, values: &[f32], out: &mut [f32]) -> Result<(), Refusal> {
        let (centroids, scale) = self.tables(values)?;
        self.dkm.assign(values, &centroids, scale.as_deref(), out)
    }

    /// The palette of the same.
    pub(super) fn palette(&self, values: &[f32]) -> Result<Palette, Refusal> {
        let (centroids, scale) = self.tables(values)?;
        self.dkm.palette(values, &centroids, scale.as_deref())
    }

    fn tables(&self, values: &[f32]) -> Result<(Vec<f32>, Option<Vec<f32>>), Refusal> {
        let scale = match self.scale() {
            Some(scale) => Some(scale.to_vec()),
            None => self.dkm.channel_scale(values)?,
        };
        let centroids = match self.state.centroids.is_empty() {
            true => self.dkm.seed(values, scale.as_deref(), None)?,
            false => self.state.centroids.clone(),
        };
        Ok((centroids, scale))
    }

    /// Takes up a saved state; a text says why it is none of this weight.
    pub(super) fn restore(&mut self, state: DkmWeightState) -> Result<(), String> {
        let (centroids, rows) = (self.dkm.centroids_len(), self.dkm.scale_len());
        let tables = match self.dkm.spec().finds_temperature() {
            true => self.dkm.groups(),
            false => 0,
        };
        let lengths = [
            ("centroids", state.centroids.len(), centroids),
            ("centroids to start from", state.start.len(), centroids),
            ("scales", state.scale.len(), rows),
            ("temperatures", state.temperatures.len(), tables),
        ];
        for (what, found, expected) in lengths {
            if found != 0 && found != expected {
                return Err(format!(
                    "it has {found} numbers of {what}, expected {expected}"
                ));
            }
        }
        let odd = state
            .temperatures
            .iter()
            .find(|t| !(t.is_normal() && **t > 0.0));
        if let Some(odd) = odd {
            return Err(format!(
                "a temperature is {odd}, expected a number above zero"
            ));
        }
        let (seeded, begun) = (!state.centroids.is_empty(), !state.start.is_empty());
        if seeded != begun || (seeded && state.scale.len() != rows) {
            return Err("some of its numbers are missing".to_owned());
        }
        (self.state, self.saved) = (state, Vec::new());
        Ok(())
    }

    fn scale(&self) -> Option<&[f32]> {
        Some(self.state.scale.as_slice()).filter(|scale| !scale.is_empty())
    }

    fn constants<'a>(&'a self, temperatures: &'a [f32], moves: u64) -> DkmConstants<'a, f32> {
        DkmConstants {
            scale: self.scale(),
            temperatures,
            noise: self.noise_seed.wrapping_add(moves),
        }
    }
}

/// A number by which a sequence that has changed is told from one that has not: a change of one place always changes it, that of
/// several almost always.
fn fingerprint(sequence: impl Iterator<Item = u64>) -> u64 {
    let odd = (1_u64..).step_by(2);
    sequence.zip(odd).fold(0, |sum, (place, odd)| {
        sum.wrapping_add(place.wrapping_mul(odd))
    })
}
