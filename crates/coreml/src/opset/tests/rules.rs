//! The rules: indices, clip bounds, compressed constants.

use super::*;

fn raised(from: Target, operations: Vec<Operation>) -> Model {
    let mut model = model(from, operations);
    raise(&mut model, Target::IOS18).unwrap();
    model
}

fn bound_value<'a>(op: &'a Operation, input: &str) -> &'a Value {
    op.inputs[input].arguments[0].value.as_ref().unwrap()
}

fn known(value: &Value) -> (DataType, Vec<usize>) {
    value.known_tensor().unwrap()
}

/// The constant that feeds the `add` of a guard.
fn size(model: &Model) -> Vec<i32> {
    let add = ops_of(model).iter().find(|op| op.r#type == "add").unwrap();
    let name = &add.inputs["y"].arguments[0].name;
    let size = ops_of(model)
        .iter()
        .find(|op| op.outputs[0].name == *name)
        .unwrap();
    let tensor = size.attributes["val"]
        .immediate
        .as_ref()
        .unwrap()
        .tensor
        .as_ref()
        .unwrap();
    tensor.ints.as_ref().unwrap().values.clone()
}

#[test]
fn constant_indices_that_count_from_the_start_stay() {
    let indices = constant("c", int32_values(&[2], vec![0, 2]));
    let gather = op("gather", &[("x", "x"), ("indices", "c")]);
    let model = raised(Target::IOS15, vec![indices.clone(), gather.clone()]);
    assert_eq!(ops_of(&model), [indices, gather]);
}

#[test]
fn other_indices_are_guarded() {
    let guard = ["const", "const", "greater_equal", "add", "select"];
    for (op_type, data, indices, wanted) in [
        (
            "gather",
            "x",
            constant("c", int32_values(&[1], vec![-1])),
            &[2][..],
        ),
        ("gather", "x", op("unused", &[]), &[2]),
        ("gather_along_axis", "x", op("unused", &[]), &[2]),
        ("gather_nd", "x", op("unused", &[]), &[2, 3]),
        ("scatter", "data", op("unused", &[]), &[2]),
        ("scatter_along_axis", "data", op("unused", &[]), &[2]),
        ("scatter_nd", "data", op("unused", &[]), &[2, 3]),
    ] {
        let from_constant = indices.r#type == "const";
        let name = if from_constant { "c" } else { "i" };
        let op = op(op_type, &[(data, "x"), ("indices", name)]);
        let before = from_constant.then_some(indices);
        let model = raised(Target::IOS16, before.into_iter().chain([op]).collect());
        let types = types_of(&model);
        let (last, rest) = types.split_last().unwrap();
        assert_eq!(*last, op_type);
        assert_eq!(&rest[rest.len() - 5..], guard, "{op_type}");
        assert_eq!(size(&model), wanted, "{op_type}");
        let ops = ops_of(&model);
        let select = &ops[ops.len() - 2];
        assert_eq!(select.inputs["a"].arguments[0].name, name);
        assert_eq!(
            ops[ops.len() - 1].inputs["indices"].arguments[0].name,
            select.outputs[0].name
        );
    }
}

#[test]
fn the_axis_and_batch_axes_choose_the_size() {
    for (op_type, input, value, wanted) in [
        ("gather", "axis", 1, &[3][..]),
        ("gather", "axis", -1, &[4]),
        ("gather_nd", "batch_dims", 1, &[3, 4]),
    ] {
        let number = constant("n", int32_values(&[], vec![value]));
        let op = op(op_type, &[("x", "x"), ("indices", "i"), (input, "n")]);
        assert_eq!(size(&raised(Target::IOS16, vec![number, op])), wanted);
    }
}

#[test]
fn an_unknown_size_is_asked_for() {
    let mut model = model(
        Target::IOS16,
        vec![op("gather", &[("x", "x"), ("indices", "i")])],
    );
    let main = model
        .ml_program
        .as_mut()
        .unwrap()
        .functions
        .get_mut("main")
        .unwrap();
    let x = main.inputs[0]
        .r#type
        .as_mut()
        .unwrap()
        .tensor_type
        .as_mut()
        .unwrap();
    x.dimensions[0].constant = None;
    raise(&mut model, Target::IOS17).unwrap();
    let types = types_of(&model);
    assert!(
        types.contains(&"shape") && types.contains(&"slice_by_index"),
        "{types:?}"
    );
}

#[test]
fn new_names_are_new() {
    let taken = constant("o_indices_zero", int32_values(&[], vec![0]));
    let gather = op("gather", &[("x", "x"), ("indices", "i")]);
    let model = raised(Target::IOS16, vec![taken, gather.clone(), gather]);
    let names: Vec<_> = ops_of(&model)
        .iter()
        .map(|op| op.outputs[0].name.clone())
        .collect();
    let mut unique: Vec<_> = names.iter().filter(|name| *name != "o").collect();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), names.len() - 2);
}

#[test]
fn nested_blocks_see_the_names_around_them() {
    let mut cond = op("cond", &[("pred", "x")]);
    let inner = op("gather", &[("x", "x"), ("indices", "c")]);
    cond.blocks = vec![
        Block {
            operations: vec![inner.clone()],
            ..Block::default()
        };
        2
    ];
    let model = raised(
        Target::IOS16,
        vec![constant("c", int32_values(&[1], vec![1])), cond.clone()],
    );
    assert_eq!(ops_of(&model)[1].blocks[0].operations, [inner]);
    let model = raised(
        Target::IOS16,
        vec![constant("c", int32_values(&[1], vec![-1])), cond.clone()],
    );
    assert_eq!(ops_of(&model)[1].blocks[1].operations.len(), 6);
    // A block input of the same name is not the constant.
    cond.blocks[0].inputs = vec![output("c", I32, &[1])];
    let model = raised(
        Target::IOS16,
        vec![constant("c", int32_values(&[1], vec![1])), cond],
    );
    assert_eq!(ops_of(&model)[1].blocks[0].operations.len(), 6);
    assert_eq!(ops_of(&model)[1].blocks[1].operations.len(), 1);
}

#[test]
fn indices_that_cannot_be_guarded_are_in_the_way() {
    let why = |inputs: &[(&str, &str)], op_type: &str| {
        reason(Target::IOS16, Target::IOS17, vec![op(op_type, inputs)])
    };
    for (inputs, op_type, words) in [
        (&[("x", "x")][..], "gather", "no input `indices`"),
        (
            &[("x", "x"), ("indices", "nobody")],
            "gather",
            "type of its input `indices`",
        ),
        (&[("x", "x"), ("indices", "x")], "gather", "element type"),
        (&[("x", "nobody"), ("indices", "i")], "gather", "rank"),
        (&[("indices", "i")], "gather", "no input `x`"),
        (
            &[("x", "x"), ("indices", "i"), ("axis", "i")],
            "gather",
            "`axis`",
        ),
        (
            &[("x", "i"), ("indices", "i"), ("batch_dims", "x")],
            "gather_nd",
            "`batch_dims`",
        ),
    ] {
        let said = why(inputs, op_type);
        assert!(said.contains(words), "{said}");
    }
    let axis = constant("n", int32_values(&[], vec![3]));
    let gather = op("gather", &[("x", "x"), ("indices", "i"), ("axis", "n")]);
    assert!(reason(Target::IOS16, Target::IOS17, vec![axis, gather]).contains("axes 3..4"));
}

#[test]
fn clip_needs_its_bounds_in_order() {
    let clip = op("clip", &[("x", "x"), ("alpha", "a"), ("beta", "b")]);
    let bound = |name, bits: u16| constant(name, bytes_value(F16, &[], &bits.to_le_bytes()));
    let one = |name| constant(name, bytes_value(F32, &[], &1f32.to_le_bytes()));
    let in_order = vec![bound("a", 0), bound("b", 0x3c00), clip.clone()];
    assert_eq!(ops_of(&raised(Target::IOS16, in_order.clone())), in_order);
    let equal = reason(
        Target::IOS16,
        Target::IOS17,
        vec![one("a"), one("b"), clip.clone()],
    );
    assert!(
        equal.contains("alpha 1") && equal.contains("beta 1"),
        "{equal}"
    );
    assert!(reason(Target::IOS16, Target::IOS17, vec![clip]).contains("`alpha`"));
}

fn lut(entries: usize, bytes: usize, shape: &[u32]) -> Operation {
    let attributes = vec![
        ("indices", blob(U8, &[bytes])),
        ("lut", blob(F16, &[entries])),
        ("shape", shape_u32(shape)),
    ];
    compressed("constexpr_lut_to_dense", attributes)
}

#[test]
fn a_lut_gets_the_ios18_form() {
    for (entries, bytes, dtype) in [
        (2, 3, DataType::UInt1),
        (4, 6, DataType::UInt2),
        (16, 11, DataType::UInt4),
        (64, 16, DataType::UInt6),
        (256, 21, DataType::UInt8),
    ] {
        let model = raised(Target::IOS16, vec![lut(entries, bytes, &[7, 3])]);
        let op = &ops_of(&model)[0];
        assert_eq!(op.attributes.keys().collect::<Vec<_>>(), ["name"]);
        assert_eq!(op.inputs.keys().collect::<Vec<_>>(), ["indices", "lut"]);
        let indices = bound_value(op, "indices");
        assert_eq!(known(indices), (dtype, vec![7, 3]));
        assert_eq!(
            indices.blob_file,
            blob(U8, &[bytes]).blob_file,
            "the bits stay where they are"
        );
        assert_eq!(known(bound_value(op, "lut")), (F16, vec![1, 1, entries, 1]));
    }
}

#[test]
fn a_mask_and_a_cast_get_the_ios18_form() {
    let sparse = compressed(
        "constexpr_sparse_to_dense",
        vec![
            ("nonzero_data", blob(F16, &[9])),
            ("mask", blob(U8, &[3])),
            ("shape", shape_u32(&[7, 3])),
        ],
    );
    let cast = compressed(
        "constexpr_cast",
        vec![
            ("source_val", blob(F16, &[7, 3])),
            ("output_dtype", string_value("fp32")),
        ],
    );
    let model = raised(Target::IOS17, vec![sparse, cast]);
    let [sparse, cast] = ops_of(&model) else {
        panic!()
    };
    assert_eq!(
        known(bound_value(sparse, "mask")),
        (DataType::UInt1, vec![7, 3])
    );
    assert_eq!(known(bound_value(sparse, "nonzero_data")), (F16, vec![9]));
    assert_eq!(known(bound_value(cast, "source_val")), (F16, vec![7, 3]));
    assert_eq!(*bound_value(cast, "output_dtype"), string_value("fp32"));
}

fn affine(zero_point: Value, scale: Value, axis: i32) -> Operation {
    let attributes = vec![
        ("quantized_data", blob(U8, &[4, 3, 2])),
        ("zero_point", zero_point),
        ("scale", scale),
        ("axis", int32_values(&[], vec![axis])),
    ];
    compressed("constexpr_affine_dequantize", attributes)
}

#[test]
fn affine_quantization_becomes_blockwise() {
    for (channels, axis, shape) in [
        (&[4][..], 0, [4, 1, 1]),
        (&[3], -2, [1, 3, 1]),
        (&[], 1, [1, 1, 1]),
    ] {
        let model = raised(
            Target::IOS16,
            vec![affine(blob(U8, channels), blob(F16, channels), axis)],
        );
        let op = &ops_of(&model)[0];
        assert_eq!(op.r#type, "constexpr_blockwise_shift_scale");
        assert_eq!(known(bound_value(op, "scale")), (F16, shape.to_vec()));
        assert_eq!(known(bound_value(op, "offset")), (U8, shape.to_vec()));
        assert_eq!(known(bound_value(op, "data")), (U8, vec![4, 3, 2]));
    }
}

#[test]
fn affine_quantization_that_blockwise_cannot_say_stays() {
    for op in [
        affine(blob(F32, &[]), blob(F32, &[]), 0),
        affine(blob(U8, &[]), blob(F32, &[4]), 0),
    ] {
        let model = raised(Target::IOS16, vec![op.clone()]);
        assert_eq!(ops_of(&model), [op]);
    }
}

#[test]
fn broken_compressed_constants_are_in_the_way() {
    let without = |mut op: Operation, attribute: &str| {
        op.attributes.remove(attribute);
        op
    };
    let with = |mut op: Operation, attribute: &str, value: Value| {
        op.attributes.insert(attribute.to_owned(), value);
        op
    };
    let good = || lut(4, 6, &[7, 3]);
    let mut as_input = good();
    as_input
        .inputs
        .insert("shape".to_owned(), argument(by_name("x")));
    for (op, words) in [
        (without(good(), "lut"), "no attribute `lut`"),
        (with(good(), "other", blob(U8, &[1])), "`other` is unknown"),
        (as_input, "`shape` is an input"),
        (lut(5, 6, &[7, 3]), "5 entries"),
        (with(good(), "lut", blob(F16, &[2, 2])), "not a list"),
        (with(good(), "indices", blob(F16, &[6])), "list of uint8"),
        (lut(4, 7, &[7, 3]), "7 bytes"),
        (lut(4, 6, &[u32::MAX, u32::MAX, u32::MAX]), "6 bytes"),
        (lut(4, 6, &[]), "scalar"),
        (
            with(good(), "shape", blob(DataType::UInt32, &[2])),
            "`shape` cannot be read",
        ),
        (
            with(
                good(),
                "shape",
                bytes_value(DataType::UInt32, &[1], &[1, 2, 3]),
            ),
            "cannot be read",
        ),
        (
            with(good(), "lut", Value::default()),
            "`lut` is not a tensor",
        ),
        (
            affine(blob(U8, &[4]), blob(F16, &[4]), 1),
            "does not fit axis 1",
        ),
        (
            affine(blob(U8, &[4]), blob(F16, &[4]), 9),
            "does not fit axis 9",
        ),
        (
            affine(blob(U8, &[4]), blob(F16, &[4]), i32::MIN),
            "does not fit axis",
        ),
        (
            with(
                affine(blob(U8, &[4]), blob(F16, &[4]), 0),
                "axis",
                Value::default(),
            ),
            "`axis`",
        ),
    ] {
        let said = reason(Target::IOS16, Target::IOS18, vec![op]);
        assert!(said.contains(words), "{said:?} should say {words:?}");
    }
}
