//! The numbers and names that stand for a deployment target in a file.

use palettizer_pipeline::config::Target;

/// What a deployment target is called in a Core ML model.
///
/// ```
/// use palettizer_coreml::opset::Opset;
/// use palettizer_pipeline::config::Target;
///
/// assert_eq!(Target::IOS18.specification_version(), 9);
/// assert_eq!(Target::IOS16.opset(), "CoreML6");
/// assert_eq!(Target::of_opset("CoreML5"), Some(Target::IOS15));
/// ```
pub trait Opset: Sized {
    /// `specificationVersion` of a model for this target.
    fn specification_version(self) -> i32;

    /// The opset's name in a function.
    fn opset(self) -> &'static str;

    /// The target of an opset's name; `None` for an opset that we do not know.
    fn of_opset(opset: &str) -> Option<Self>;
}

impl Opset for Target {
    fn specification_version(self) -> i32 {
        match self {
            Target::IOS15 => 6,
            Target::IOS16 => 7,
            Target::IOS17 => 8,
            Target::IOS18 => 9,
            Target::IOS26 => 10,
        }
    }

    fn opset(self) -> &'static str {
        match self {
            Target::IOS15 => "CoreML5",
            Target::IOS16 => "CoreML6",
            Target::IOS17 => "CoreML7",
            Target::IOS18 => "CoreML8",
            Target::IOS26 => "CoreML9",
        }
    }

    fn of_opset(opset: &str) -> Option<Target> {
        Target::ALL
            .into_iter()
            .find(|target| target.opset() == opset)
    }
}
