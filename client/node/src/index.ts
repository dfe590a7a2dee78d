export {
  Client, open,
  type CallOptions, type Change, type ConnectionTest, type GetOptions, type Invalidation, type OpenOptions, type ReadOptions,
  type ResolveObjectOptions, type UseOptions, type WatchOptions,
} from './client.js';
export { BatchError, SecretSidecarError, type Violation } from './errors.js';
export { storedReference, type StoredReference } from './reference.js';
export { Secret, type Source } from './secret.js';
export {
  CheckStatus, ConnectionState, Scope,
  type ConnectionCheck, type ConnectionSpec, type ConnectionStatus, type Mount, type TestConnectionResponse,
} from './gen/secretsidecar/v1/secret_service_pb.js';
