//! The Rust blocks of the README and of the guide, word for word (`tests/python/pages.py` compares them), run on the
//! built-in model.

use std::env;

#[rustfmt::skip]
fn readme() -> Result<(), palettizer::Error> {
    use palettizer::{Mode, Model, Nbits, OpPalettizerConfig, OptimizationConfig, PaletteSpec, SaveOptions};

    let model = Model::open("Model.mlpackage")?;
    let config = OptimizationConfig::new()
        .with_global(OpPalettizerConfig::new(PaletteSpec::new(Mode::Kmeans(Nbits::B4))))
        .with_op_type("gather", None);
    let report = model.palettize_to(&config, "Small.mlpackage", SaveOptions::default(), &())?;

    assert_eq!(report.weights.len(), 3);
    Ok(())
}

/// One test: the blocks name files in the current folder, which a process has once.
#[test]
fn the_blocks_of_the_pages_run() {
    let folder = tempfile::tempdir().unwrap();
    env::set_current_dir(folder.path()).unwrap();
    palettizer_cli::demo_model()
        .unwrap()
        .save("Model.mlpackage", palettizer::SaveOptions::default())
        .unwrap();
    readme().unwrap();
    assert!(folder.path().join("Small.mlpackage").is_dir());
}
