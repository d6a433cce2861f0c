//! Work in batches: bounded memory, and two things at once.

use crate::{FormatError, Progress, go_on};
use rayon::prelude::*;
use std::ops::Range;

/// A batch takes about this much memory at most; what needs more has a batch for itself.
const BATCH_BYTES: u64 = 16 << 20;

/// Makes something of every item, in batches: in parallel inside a batch, while what came of the batch before is put
/// away, in order. `bytes` says how much memory an item takes.
///
/// # Errors
/// What `put` gives, and [`Stopped`](crate::Error::Stopped) when `progress` says so.
pub fn in_batches<I: Sync, T: Send, E: FormatError>(
    items: &[I],
    bytes: impl Fn(&I) -> u64,
    make: impl Fn(&I) -> T + Sync,
    mut put: impl FnMut(&I, T) -> Result<(), E> + Send,
    progress: &dyn Progress,
) -> Result<(), E> {
    let behind_the_last = items.len()..items.len();
    let mut before = &items[..0];
    let mut made = Vec::new();
    for run in runs(items.iter().map(bytes))
        .into_iter()
        .chain(Some(behind_the_last))
    {
        go_on(progress.stop())?;
        let batch = &items[run];
        let (next, done) = rayon::join(
            || batch.par_iter().map(&make).collect(),
            || {
                let mut pairs = before.iter().zip(std::mem::take(&mut made));
                pairs.try_for_each(|(item, made)| put(item, made))
            },
        );
        done?;
        (before, made) = (batch, next);
    }
    Ok(())
}

/// Runs of items that together take no more than a batch, or are one alone.
fn runs(bytes: impl Iterator<Item = u64>) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut end, mut sum) = (0, 0, 0u64);
    for own in bytes {
        if end > start && sum.saturating_add(own) > BATCH_BYTES {
            runs.push(start..end);
            (start, sum) = (end, 0);
        }
        sum = sum.saturating_add(own);
        end += 1;
    }
    runs.push(start..end);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn batches_are_full_or_one() {
        let most = BATCH_BYTES;
        let table: [(&[u64], &[usize]); 6] = [
            (&[], &[0]),
            (&[1], &[1]),
            (&[0, most, 0, 1], &[3, 1]),
            (&[most + 1, 1, 1], &[1, 2]),
            (&[1, u64::MAX, u64::MAX], &[1, 1, 1]),
            (&[most / 2, most / 2, most / 2], &[2, 1]),
        ];
        for (bytes, lengths) in table {
            let found = runs(bytes.iter().copied());
            let found: Vec<usize> = found.iter().map(Range::len).collect();
            assert_eq!(found, lengths, "{bytes:?}");
        }
    }

    #[test]
    fn everything_is_put_once_and_in_order() {
        let items: Vec<u64> = (0..40).collect();
        let mut put = Vec::new();
        let bytes = |item: &u64| item << 20;
        let done = in_batches(
            &items,
            bytes,
            |item| item * 2,
            |item, made| {
                put.push((*item, made));
                Ok::<(), Error>(())
            },
            &(),
        );
        assert!(done.is_ok());
        let expected: Vec<_> = items.iter().map(|&item| (item, item * 2)).collect();
        assert_eq!(put, expected);
    }
}
