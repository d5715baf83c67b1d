//! Builds a graph node by node. The same calls give the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::proto::{
    AttributeProto, AttributeType, DimensionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// The newest operator set that all the engines know which we accept: ONNX Runtime 1.22 and rten 0.27.
const OPSET: i64 = 20;
/// The version of the file format that came with it.
const IR_VERSION: i64 = 9;
/// Field numbers of `ModelProto.graph` and `GraphProto.initializer`, which are written in pieces.
const GRAPH_FIELD: u32 = 7;
const INITIALIZER_FIELD: u32 = 5;

/// A value in the graph under construction: an input, a constant, or what a node makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge(usize);

/// What the elements of an input or output are (`TensorProto.DataType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// IEEE single precision.
    F32 = 1,
    /// Signed, 64 bits. The engine rten keeps them in 32.
    I64 = 7,
}

/// One dimension of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim<'a> {
    /// Always this size.
    Fixed(usize),
    /// Any size; the same name is the same size.
    Any(&'a str),
}

/// The value of a node's attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A whole number.
    Int(i64),
    /// A list of whole numbers.
    Ints(Vec<i64>),
    /// A number.
    Float(f32),
    /// A word.
    String(&'static str),
}

/// A graph under construction.
///
/// The methods named after operators append one node each and return what it makes; shapes, broadcasting and
/// attributes are as <https://onnx.ai/onnx/operators/> has them. What has no method goes through [`Self::node`].
#[derive(Debug)]
pub struct GraphBuilder {
    graph: GraphProto,
    /// Names of all edges, by index.
    names: Vec<String>,
    nodes: Vec<PendingNode>,
    /// Edges that carry a name of the graph's interface, and so cannot get another.
    taken: Vec<Edge>,
    /// Small integer constants that are there already.
    integers: BTreeMap<(Vec<usize>, Vec<i64>), Edge>,
}

#[derive(Debug)]
struct PendingNode {
    op: &'static str,
    inputs: Vec<Option<Edge>>,
    outputs: Vec<Edge>,
    attributes: Vec<(&'static str, Attribute)>,
}

/// A finished model, ready to be written.
#[derive(Debug)]
pub struct Model {
    proto: ModelProto,
}

impl GraphBuilder {
    /// An empty graph of this name.
    pub fn new(name: &str) -> Self {
        Self {
            graph: GraphProto { name: Some(name.into()), ..GraphProto::default() },
            names: Vec::new(),
            nodes: Vec::new(),
            taken: Vec::new(),
            integers: BTreeMap::new(),
        }
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, element: Element, dims: &[Dim<'_>]) -> Edge {
        self.graph.input.push(value_info(name, element, dims));
        let edge = self.edge(name.into());
        self.taken.push(edge);
        edge
    }

    /// Makes `edge` an output of the graph under `name`.
    pub fn output(&mut self, edge: Edge, name: &str, element: Element, dims: &[Dim<'_>]) {
        let edge = if self.taken.contains(&edge) {
            self.node("Identity", &[edge], Vec::new())
        } else {
            edge
        };
        self.names[edge.0] = name.into();
        self.taken.push(edge);
        self.graph.output.push(value_info(name, element, dims));
    }

    /// A constant tensor of f32, row-major. `values` holds as many as `shape` has places.
    pub fn constant(&mut self, shape: &[usize], values: &[f32]) -> Edge {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "constant of shape {shape:?}");
        let bytes: Vec<u8> = match bytemuck::try_cast_slice(values) {
            Ok(bytes) if cfg!(target_endian = "little") => bytes.to_vec(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        self.initializer(shape, Element::F32, bytes)
    }

    /// A constant of one f32 without dimensions.
    pub fn scalar(&mut self, value: f32) -> Edge {
        self.constant(&[], &[value])
    }

    /// A constant tensor of i64, row-major; equal ones are stored once.
    pub fn integers(&mut self, shape: &[usize], values: &[i64]) -> Edge {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "constant of shape {shape:?}");
        let key = (shape.to_vec(), values.to_vec());
        if let Some(&edge) = self.integers.get(&key) {
            return edge;
        }
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let edge = self.initializer(shape, Element::I64, bytes);
        self.integers.insert(key, edge);
        edge
    }

    /// Appends a node with one output.
    pub fn node(
        &mut self,
        op: &'static str,
        inputs: &[Edge],
        attributes: Vec<(&'static str, Attribute)>,
    ) -> Edge {
        let inputs = inputs.iter().copied().map(Some).collect();
        self.append(op, inputs, 1, attributes)[0]
    }

    /// The model of all that was built.
    pub fn finish(self) -> Model {
        let Self { mut graph, names, nodes, .. } = self;
        let name_of = |edge: &Edge| names[edge.0].clone();
        graph.node = nodes
            .into_iter()
            .enumerate()
            .map(|(index, node)| NodeProto {
                input: node
                    .inputs
                    .iter()
                    .map(|edge| edge.as_ref().map_or(String::new(), name_of))
                    .collect(),
                output: node.outputs.iter().map(name_of).collect(),
                name: Some(format!("{}_{index}", node.op)),
                op_type: Some(node.op.into()),
                attribute: node.attributes.into_iter().map(attribute).collect(),
            })
            .collect();
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) };
        Model {
            proto: ModelProto {
                ir_version: Some(IR_VERSION),
                producer_name: Some("mk-tts".into()),
                graph: Some(graph),
                opset_import: vec![opset],
                ..ModelProto::default()
            },
        }
    }

    fn edge(&mut self, name: String) -> Edge {
        self.names.push(name);
        Edge(self.names.len() - 1)
    }

    fn initializer(&mut self, shape: &[usize], element: Element, bytes: Vec<u8>) -> Edge {
        let name = format!("constant_{}", self.graph.initializer.len());
        self.graph.initializer.push(TensorProto {
            dims: shape.iter().map(|&n| n as i64).collect(),
            data_type: Some(element as i32),
            name: Some(name.clone()),
            raw_data: Some(Bytes::from(bytes)),
        });
        let edge = self.edge(name);
        // A constant has the name that its initialiser was given.
        self.taken.push(edge);
        edge
    }

    fn append(
        &mut self,
        op: &'static str,
        inputs: Vec<Option<Edge>>,
        outputs: usize,
        attributes: Vec<(&'static str, Attribute)>,
    ) -> Vec<Edge> {
        let outputs: Vec<Edge> =
            (0..outputs).map(|_| self.edge(format!("edge_{}", self.names.len()))).collect();
        self.nodes.push(PendingNode { op, inputs, outputs: outputs.clone(), attributes });
        outputs
    }
}

/// One node each.
impl GraphBuilder {
    /// `a + b`, broadcast.
    pub fn add(&mut self, a: Edge, b: Edge) -> Edge {
        self.node("Add", &[a, b], Vec::new())
    }

    /// `a - b`, broadcast.
    pub fn sub(&mut self, a: Edge, b: Edge) -> Edge {
        self.node("Sub", &[a, b], Vec::new())
    }

    /// `a * b`, broadcast.
    pub fn mul(&mut self, a: Edge, b: Edge) -> Edge {
        self.node("Mul", &[a, b], Vec::new())
    }

    /// `a / b`, broadcast.
    pub fn div(&mut self, a: Edge, b: Edge) -> Edge {
        self.node("Div", &[a, b], Vec::new())
    }

    /// The matrix product of the last two dimensions.
    pub fn matmul(&mut self, a: Edge, b: Edge) -> Edge {
        self.node("MatMul", &[a, b], Vec::new())
    }

    /// An operator of one input that keeps its shape and has no attributes: `Sin`, `Cos`, `Exp`, `Sqrt`, `Sigmoid`,
    /// `Erf`, `Tanh`, `Relu`, `Elu`, `Gelu`, `Neg`, `Log`...
    pub fn unary(&mut self, op: &'static str, x: Edge) -> Edge {
        self.node(op, &[x], Vec::new())
    }

    /// 1-D convolution of `x` [1, in, t] with `weight` [out, in / groups, k], padded with `pads` zeros (left, right).
    pub fn conv(&mut self, x: Edge, weight: Edge, bias: Option<Edge>, conv: Conv) -> Edge {
        let ints = |values: &[usize]| Attribute::Ints(values.iter().map(|&n| n as i64).collect());
        let attributes = vec![
            ("dilations", ints(&[conv.dilation])),
            ("group", Attribute::Int(conv.groups as i64)),
            ("pads", ints(&[conv.pads.0, conv.pads.1])),
            ("strides", ints(&[conv.stride])),
        ];
        self.conv_node(x, weight, bias, attributes)
    }

    /// The same as a 2-D convolution of height 1, `x` being [1, in, 1, t] and `weight` [out, in / groups, 1, k]: ONNX
    /// Runtime has faster kernels for two dimensions than for one.
    pub fn flat_conv(&mut self, x: Edge, weight: Edge, bias: Option<Edge>, conv: Conv) -> Edge {
        let ints = |values: &[usize]| Attribute::Ints(values.iter().map(|&n| n as i64).collect());
        let attributes = vec![
            ("dilations", ints(&[1, conv.dilation])),
            ("group", Attribute::Int(conv.groups as i64)),
            ("pads", ints(&[0, conv.pads.0, 0, conv.pads.1])),
            ("strides", ints(&[1, conv.stride])),
        ];
        self.conv_node(x, weight, bias, attributes)
    }

    fn conv_node(
        &mut self,
        x: Edge,
        weight: Edge,
        bias: Option<Edge>,
        attributes: Vec<(&'static str, Attribute)>,
    ) -> Edge {
        let inputs = [x, weight].into_iter().chain(bias).map(Some).collect();
        self.append("Conv", inputs, 1, attributes)[0]
    }

    /// Normalises the last dimension to mean 0 and variance 1, then scales and shifts it.
    pub fn layer_norm(&mut self, x: Edge, scale: Edge, shift: Edge, epsilon: f32) -> Edge {
        let attributes = vec![("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
        self.node("LayerNormalization", &[x, scale, shift], attributes)
    }

    /// Softmax over `axis`.
    pub fn softmax(&mut self, x: Edge, axis: i64) -> Edge {
        self.node("Softmax", &[x], vec![("axis", Attribute::Int(axis))])
    }

    /// Joins `parts` along `axis`.
    pub fn concat(&mut self, parts: &[Edge], axis: i64) -> Edge {
        self.node("Concat", parts, vec![("axis", Attribute::Int(axis))])
    }

    /// `x[start..end]` along `axis`; negative bounds count from the end, `i64::MAX` is the end.
    pub fn slice(&mut self, x: Edge, axis: i64, start: i64, end: i64) -> Edge {
        let bounds = [[start], [end], [axis]].map(|value| self.integers(&[1], &value));
        self.node("Slice", &[x, bounds[0], bounds[1], bounds[2]], Vec::new())
    }

    /// `x[start..end]` along `axis`; the bounds, i64 \[1\], may be another in each call.
    pub fn slice_between(&mut self, x: Edge, axis: i64, start: Edge, end: Edge) -> Edge {
        let axis = self.integers(&[1], &[axis]);
        self.node("Slice", &[x, start, end, axis], Vec::new())
    }

    /// Rows of `table` along `axis`, by `indices` (i64).
    pub fn gather(&mut self, table: Edge, indices: Edge, axis: i64) -> Edge {
        self.node("Gather", &[table, indices], vec![("axis", Attribute::Int(axis))])
    }

    /// Cuts `x` along `axis` into parts of these sizes.
    pub fn split(&mut self, x: Edge, axis: i64, sizes: &[i64]) -> Vec<Edge> {
        let edge = self.integers(&[sizes.len()], sizes);
        let attributes = vec![("axis", Attribute::Int(axis))];
        self.append("Split", vec![Some(x), Some(edge)], sizes.len(), attributes)
    }

    /// Reorders dimensions.
    pub fn transpose(&mut self, x: Edge, order: &[i64]) -> Edge {
        self.node("Transpose", &[x], vec![("perm", Attribute::Ints(order.to_vec()))])
    }

    /// The same elements in another shape; one dimension may be -1, and 0 keeps what `x` has there.
    pub fn reshape(&mut self, x: Edge, shape: &[i64]) -> Edge {
        let shape = self.integers(&[shape.len()], shape);
        self.node("Reshape", &[x, shape], Vec::new())
    }

    /// Adds dimensions of size 1 at `axes`.
    pub fn unsqueeze(&mut self, x: Edge, axes: &[i64]) -> Edge {
        let axes = self.integers(&[axes.len()], axes);
        self.node("Unsqueeze", &[x, axes], Vec::new())
    }

    /// Removes the dimensions of size 1 at `axes`.
    pub fn squeeze(&mut self, x: Edge, axes: &[i64]) -> Edge {
        let axes = self.integers(&[axes.len()], axes);
        self.node("Squeeze", &[x, axes], Vec::new())
    }

    /// `ReduceMean`, `ReduceSum`, `ReduceMax`...: over `axes`, which stay with size 1.
    pub fn reduce(&mut self, op: &'static str, x: Edge, axes: &[i64]) -> Edge {
        let axes = self.integers(&[axes.len()], axes);
        self.node(op, &[x, axes], vec![("keepdims", Attribute::Int(1))])
    }

    /// Index of the first largest element along `axis`, which goes.
    pub fn arg_max(&mut self, x: Edge, axis: i64) -> Edge {
        let attributes = vec![("axis", Attribute::Int(axis)), ("keepdims", Attribute::Int(0))];
        self.node("ArgMax", &[x], attributes)
    }

    /// Adds places `before` and `after` the elements of each dimension that mirror those within.
    pub fn pad_mirrored(&mut self, x: Edge, before: &[i64], after: &[i64]) -> Edge {
        let amounts: Vec<i64> = before.iter().chain(after).copied().collect();
        let amounts = self.integers(&[amounts.len()], &amounts);
        self.node("Pad", &[x, amounts], vec![("mode", Attribute::String("reflect"))])
    }
}

/// How a 1-D convolution steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv {
    /// Outputs are this far apart in the input.
    pub stride: usize,
    /// Taps are this far apart in the input.
    pub dilation: usize,
    /// Groups of channels that do not mix.
    pub groups: usize,
    /// Zeros before and after the input.
    pub pads: (usize, usize),
}

impl Default for Conv {
    fn default() -> Self {
        Self { stride: 1, dilation: 1, groups: 1, pads: (0, 0) }
    }
}

impl Model {
    /// The bytes of the `.onnx` file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.proto.encode_to_vec()
    }

    /// Writes the same bytes, one weight at a time, so that large models are not held in memory twice.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        // Cheap: the weights' bytes are shared.
        let mut head = self.proto.clone();
        let Some(mut graph) = head.graph.take() else { return out.write_all(&self.to_bytes()) };
        let graph_length = graph.encoded_len();
        // Fields are written in the order of their numbers, as `encode` does: what comes before the graph...
        let opset_import = std::mem::take(&mut head.opset_import);
        let mut piece = head.encode_to_vec();
        encode_key(GRAPH_FIELD, WireType::LengthDelimited, &mut piece);
        encode_varint(graph_length as u64, &mut piece);
        // ...the graph before its weights...
        let weights = std::mem::take(&mut graph.initializer);
        let (input, output) = (std::mem::take(&mut graph.input), std::mem::take(&mut graph.output));
        graph.encode(&mut piece).map_err(io::Error::other)?;
        out.write_all(&piece)?;
        for weight in weights {
            piece.clear();
            encode_key(INITIALIZER_FIELD, WireType::LengthDelimited, &mut piece);
            weight.encode_length_delimited(&mut piece).map_err(io::Error::other)?;
            out.write_all(&piece)?;
        }
        // ...and what comes after them.
        let rest = GraphProto { input, output, ..GraphProto::default() };
        out.write_all(&rest.encode_to_vec())?;
        out.write_all(&ModelProto { opset_import, ..ModelProto::default() }.encode_to_vec())
    }
}

fn value_info(name: &str, element: Element, dims: &[Dim<'_>]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => {
                DimensionProto { dim_value: Some(*size as i64), ..DimensionProto::default() }
            }
            Dim::Any(name) => {
                DimensionProto { dim_param: Some((*name).into()), ..DimensionProto::default() }
            }
        })
        .collect();
    let tensor_type =
        TensorTypeProto { elem_type: Some(element as i32), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
    }
}

fn attribute((name, value): (&'static str, Attribute)) -> AttributeProto {
    let named = AttributeProto { name: Some(name.into()), ..AttributeProto::default() };
    let (kind, filled) = match value {
        Attribute::Int(i) => (AttributeType::Int, AttributeProto { i: Some(i), ..named }),
        Attribute::Ints(ints) => (AttributeType::Ints, AttributeProto { ints, ..named }),
        Attribute::Float(f) => (AttributeType::Float, AttributeProto { f: Some(f), ..named }),
        Attribute::String(s) => {
            (AttributeType::String, AttributeProto { s: Some(s.into()), ..named })
        }
    };
    AttributeProto { r#type: Some(kind as i32), ..filled }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Model {
        let mut g = GraphBuilder::new("small");
        let x = g.input("x", Element::F32, &[Dim::Fixed(1), Dim::Any("t")]);
        let two = g.scalar(2.0);
        let y = g.mul(x, two);
        let z = g.slice(y, 1, 0, 3);
        g.output(z, "z", Element::F32, &[Dim::Fixed(1), Dim::Fixed(3)]);
        g.output(x, "same", Element::F32, &[Dim::Fixed(1), Dim::Any("t")]);
        g.finish()
    }

    #[test]
    fn written_in_pieces_or_at_once_it_is_the_same() {
        let whole = small().to_bytes();
        let mut pieces = Vec::new();
        small().write(&mut pieces).unwrap();
        assert_eq!(pieces, whole);
        let read = ModelProto::decode(pieces.as_slice()).unwrap();
        assert_eq!(read, small().proto);
    }

    #[test]
    fn an_output_that_is_an_input_goes_through_a_node() {
        let graph = small().proto.graph.unwrap();
        let last = graph.node.last().unwrap();
        assert_eq!(last.op_type.as_deref(), Some("Identity"));
        assert_eq!((last.input[0].as_str(), last.output[0].as_str()), ("x", "same"));
    }

    #[test]
    fn equal_integers_are_stored_once() {
        let mut g = GraphBuilder::new("g");
        assert_eq!(g.integers(&[1], &[3]), g.integers(&[1], &[3]));
        assert_ne!(g.integers(&[1], &[3]), g.integers(&[], &[3]));
    }
}
