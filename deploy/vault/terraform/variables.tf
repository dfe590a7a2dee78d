variable "role_name" {
  description = "Name of the AppRole and of its policy: one for each worker and environment."
  type        = string
  default     = "flow-worker"
}

variable "kv_mount" {
  description = "Path of the KV version 2 mount with the secrets."
  type        = string
  default     = "flows"
}

variable "create_kv_mount" {
  description = "Whether to make that mount. False uses one that is there. To hand one over that was made here, take it out of the state first: terraform state rm 'vault_mount.kv[0]'."
  type        = bool
  default     = true
}

variable "secret_paths" {
  description = "Which secrets of the mount the worker may read, for example [\"team-a/*\"]; [\"*\"] is all of them. There is no default: say what it needs."
  type        = list(string)
}

variable "approle_mount" {
  description = "Path of the AppRole auth method."
  type        = string
  default     = "approle"
}

variable "create_approle_mount" {
  description = "Whether to enable it. False uses one that is there, with the roles of others perhaps. To hand one over that was made here: terraform state rm 'vault_auth_backend.approle[0]'."
  type        = bool
  default     = true
}

variable "bound_cidrs" {
  description = "Networks that logins and tokens are bound to, for example [\"10.0.0.0/8\"]. Null binds them to none."
  type        = list(string)
  default     = null
}
