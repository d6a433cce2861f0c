//! What type of model a file holds, by the number of the field in `Model` that is set.
//!
//! The specification has about 40 types. Only ML Programs have weights that can be palettized; the rest
//! we know by name, to refuse them by name.

use crate::Error;
use crate::package::PackageError;
use crate::program::walk::programs;
use crate::proto::Model;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use std::path::Path;

/// The members of `Model`'s oneof that this crate does not look into.
const KINDS: [(u32, &str); 33] = [
    (300, "glmRegressor"),
    (301, "supportVectorRegressor"),
    (302, "treeEnsembleRegressor"),
    (303, "neuralNetworkRegressor"),
    (304, "bayesianProbitRegressor"),
    (400, "glmClassifier"),
    (401, "supportVectorClassifier"),
    (402, "treeEnsembleClassifier"),
    (403, "neuralNetworkClassifier"),
    (404, "kNearestNeighborsClassifier"),
    (500, "neuralNetwork"),
    (501, "itemSimilarityRecommender"),
    (555, "customModel"),
    (556, "linkedModel"),
    (560, "classConfidenceThresholding"),
    (600, "oneHotEncoder"),
    (601, "imputer"),
    (602, "featureVectorizer"),
    (603, "dictVectorizer"),
    (604, "scaler"),
    (606, "categoricalMapping"),
    (607, "normalizer"),
    (609, "arrayFeatureExtractor"),
    (610, "nonMaximumSuppression"),
    (900, "identity"),
    (2000, "textClassifier"),
    (2001, "wordTagger"),
    (2002, "visionFeaturePrint"),
    (2003, "soundAnalysisPreprocessing"),
    (2004, "gazetteer"),
    (2005, "wordEmbedding"),
    (2006, "audioFeaturePrint"),
    (3000, "serializedModel"),
];

/// The smallest number of a member of the oneof: the fields below are common to all models.
const FIRST_KIND: u32 = 200;

/// Passes a model that is an ML Program or holds one; refuses any other by name.
pub(super) fn check(model: &Model, path: &Path) -> Result<(), Error> {
    if !programs(model).is_empty() {
        return Ok(());
    }
    let kinds = kind_name(model);
    if kinds.is_empty() {
        return Err(PackageError::EmptyModel {
            path: path.to_owned(),
        }
        .into());
    }
    let advice = advice(&kinds);
    Err(PackageError::NotAnMlProgram {
        path: path.to_owned(),
        kind: kinds,
        advice,
    }
    .into())
}

/// The models of a pipeline, in their order; `None` if the model is no pipeline.
pub fn stages(model: &Model) -> Option<&[Model]> {
    let typed = model
        .pipeline_classifier
        .as_ref()
        .or(model.pipeline_regressor.as_ref());
    match (&model.pipeline, typed) {
        (Some(pipeline), _) => Some(&pipeline.models),
        (None, Some(typed)) => Some(typed.pipeline.as_ref().map_or(&[], |p| &p.models)),
        (None, None) => None,
    }
}

/// The name of a model's type, a pipeline's with those of its members; empty if it has none.
pub fn kind_name(model: &Model) -> String {
    match stages(model) {
        None => own_name(model),
        Some([]) => "pipeline (empty)".to_owned(),
        Some(models) => {
            let names: Vec<String> = models.iter().map(kind_name).collect();
            format!("pipeline ({})", names.join(", "))
        }
    }
}

fn own_name(model: &Model) -> String {
    if model.ml_program.is_some() {
        return "mlProgram".to_owned();
    }
    // The last one set is the one that counts, as in every oneof.
    let mut fields = model.unknown.as_slice();
    let mut found = String::new();
    while let Ok((tag, wire_type)) = decode_key(&mut fields) {
        if skip_field(wire_type, tag, &mut fields, DecodeContext::default()).is_err() {
            break;
        }
        if tag >= FIRST_KIND {
            found = KINDS
                .iter()
                .find(|(number, _)| *number == tag)
                .map_or_else(|| format!("type {tag}"), |(_, name)| (*name).to_owned());
        }
    }
    found
}

fn advice(kinds: &str) -> &'static str {
    if kinds.contains("neuralNetwork") {
        "convert the original model again with coremltools.convert(..., convert_to=\"mlprogram\"), \
         or compress this one with coremltools.models.neural_network.quantization_utils.quantize_weights"
    } else if kinds.contains("serializedModel") || kinds.contains("linkedModel") {
        "its contents are not in this file; give the model that it was made of"
    } else {
        "only ML Programs hold weights that can be palettized; \
         neural networks become one by coremltools.convert(..., convert_to=\"mlprogram\")"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Pipeline, Program, TypedPipeline};
    use prost::Message;

    fn of_type(tag: u32) -> Model {
        let mut bytes = vec![0x08, 0x06];
        prost::encoding::bytes::encode(tag, &vec![0x08, 0x01], &mut bytes);
        Model::decode(bytes.as_slice()).unwrap()
    }

    fn refusal(model: &Model) -> String {
        check(model, Path::new("m")).unwrap_err().to_string()
    }

    #[test]
    fn every_other_type_is_refused_by_name() {
        for (tag, name) in KINDS {
            let message = refusal(&of_type(tag));
            assert!(message.contains(&format!("a {name} model")), "{message}");
        }
        assert!(refusal(&of_type(4711)).contains("type 4711"));
        assert!(refusal(&of_type(500)).contains("convert_to=\"mlprogram\""));
        assert!(refusal(&Model::default()).contains("names no model type"));
    }

    #[test]
    fn a_pipeline_needs_one_program_at_any_depth() {
        let pipeline = |models| Model {
            pipeline: Some(Pipeline {
                models,
                ..Default::default()
            }),
            ..Default::default()
        };
        let program = Model {
            ml_program: Some(Program::default()),
            ..Default::default()
        };
        assert!(refusal(&pipeline(vec![])).contains("pipeline (empty)"));
        assert!(
            refusal(&pipeline(vec![of_type(500), of_type(610)]))
                .contains("pipeline (neuralNetwork, nonMaximumSuppression)")
        );
        let nested = Model {
            pipeline_classifier: Some(TypedPipeline {
                pipeline: pipeline(vec![of_type(604), pipeline(vec![program])]).pipeline,
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(check(&nested, Path::new("m")).is_ok());
    }
}
