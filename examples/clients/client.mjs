// Features of images from Node, over REST by fetch or over gRPC:
//
//   node client.mjs http://localhost:8501 photo.jpg ...
//   npm install && node client.mjs localhost:8500 photo.jpg ...
//
// Prints a line of JSON for each image: its path, whether it could be used, why not, the
// version that answered (gRPC) and the features.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const MODEL = process.env.MODEL_NAME ?? "slotcon";
const SIGNATURE = "embed";
const SECONDS = 60;
const MOST_BYTES = 64 * 2 ** 20;
const FLOAT32 = 1, INT32 = 3, STRING = 7, BOOL = 10;

async function byRest(server, files) {
  const body = {
    signature_name: SIGNATURE,
    inputs: { image_bytes: files.map((file) => ({ b64: file.toString("base64") })) },
  };
  const answer = await fetch(`${server}/v1/models/${MODEL}:predict`, {
    method: "POST",
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(1000 * SECONDS),
  });
  const found = await answer.json();
  if (!answer.ok) throw new Error(`${answer.status}: ${found.error}`);
  return found.outputs;
}

// Rows of numbers: a tensor has them as bytes, lowest first, or as a list.
function rows(tensor) {
  const shape = tensor.tensor_shape.dim.map(({ size }) => Number(size));
  const count = shape.reduce((a, b) => a * b, 1);
  const bytes = Uint8Array.from(tensor.tensor_content);
  const [lists, kind] = {
    [FLOAT32]: [tensor.float_val, Float32Array],
    [INT32]: [tensor.int_val, Int32Array],
    [BOOL]: [tensor.bool_val, Uint8Array],
  }[tensor.dtype];
  let values = bytes.length ? [...new kind(bytes.buffer)] : [...lists];
  // A list may leave out the end of equal values.
  while (values.length < count) values.push(values.at(-1) ?? 0);
  if (tensor.dtype === BOOL) values = values.map(Boolean);
  if (shape.length === 1) return values;
  return Array.from({ length: shape[0] }, (_, row) =>
    values.slice(row * shape[1], (row + 1) * shape[1]));
}

async function byGrpc(server, files) {
  // Found beside this file or in NODE_PATH.
  const require = createRequire(import.meta.url);
  const grpc = require("@grpc/grpc-js");
  const path = fileURLToPath(new URL("predict.proto", import.meta.url));
  const definition = require("@grpc/proto-loader").loadSync(path, {
    keepCase: true, defaults: true, longs: String,
  });
  const { tensorflow } = grpc.loadPackageDefinition(definition);
  const client = new tensorflow.serving.PredictionService(
    server, grpc.credentials.createInsecure(),
    { "grpc.max_receive_message_length": MOST_BYTES });
  const request = {
    model_spec: { name: MODEL, signature_name: SIGNATURE },
    inputs: {
      image_bytes: {
        dtype: STRING,
        tensor_shape: { dim: [{ size: files.length }] },
        string_val: files,
      },
    },
    output_filter: ["pooled", "ok", "reason"],
  };
  const deadline = Date.now() + 1000 * SECONDS;
  try {
    const found = await new Promise((take, refuse) =>
      client.Predict(request, { deadline }, (error, answer) =>
        error ? refuse(error) : take(answer)));
    const outputs = Object.entries(found.outputs);
    return {
      ...Object.fromEntries(outputs.map(([name, value]) => [name, rows(value)])),
      version: Number(found.model_spec.version.value),
    };
  } finally {
    client.close();
  }
}

const [server, ...paths] = process.argv.slice(2);
if (!paths.length) {
  console.error("node client.mjs http://HOST:8501 or HOST:8500, and image files");
  process.exit(2);
}
try {
  const ask = server.startsWith("http") ? byRest : byGrpc;
  const found = await ask(server, paths.map((path) => readFileSync(path)));
  paths.forEach((path, row) => console.log(JSON.stringify({
    path,
    ok: found.ok[row],
    reason: found.reason[row],
    version: found.version,
    pooled: found.ok[row] ? found.pooled[row] : null,
  })));
} catch (error) {
  console.error(`client.mjs: ${error.message}`);
  process.exit(1);
}
