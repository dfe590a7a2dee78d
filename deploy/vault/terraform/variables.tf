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
  description = "Whether to make that mount. False uses one that is there."
  type        = bool
  default     = true
}

variable "secret_paths" {
  description = "Which secrets of the mount the worker may read, for example [\"team-a/*\"]."
  type        = list(string)
  default     = ["*"]
}

variable "approle_mount" {
  description = "Path of the AppRole auth method."
  type        = string
  default     = "approle"
}

variable "create_approle_mount" {
  description = "Whether to enable it. False uses one that is there."
  type        = bool
  default     = true
}

variable "bound_cidrs" {
  description = "Networks that logins and tokens are bound to, for example [\"10.0.0.0/8\"]. Null binds them to none."
  type        = list(string)
  default     = null
}
