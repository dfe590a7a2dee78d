{{/*
secret-sidecar.configMap is the ConfigMap with the configuration and the files that it names. Its name stays the same, so
that the sidecar reads a change without a restart: put no checksum of it into the pod's annotations.
*/}}
{{- define "secret-sidecar.configMap" -}}
{{- include "secret-sidecar.requireValues" . -}}
{{- $values := index .Values "secret-sidecar" -}}
{{- range $values.config.connections -}}
{{- if .secret_id -}}
{{- fail "a ConfigMap is no place for a secret_id: put it into the Secret secret-sidecar.approleSecret, and name it by secret_id_file" -}}
{{- end -}}
{{- end -}}
{{- with $values.config.socket -}}
{{- if not (has .path (list nil "/run/secret-sidecar/sidecar.sock")) -}}
{{- fail "leave out secret-sidecar.config.socket.path: probes and worker ask at /run/secret-sidecar/sidecar.sock" -}}
{{- end -}}
{{- end -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "secret-sidecar.configMapName" . }}
  namespace: {{ .Release.Namespace | quote }}
data:
  config.yaml: |
    {{- toYaml $values.config | nindent 4 }}
  {{- with $values.files }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "secret-sidecar.configMapName" -}}
{{- default (printf "%s-secret-sidecar-config" .Release.Name) (index .Values "secret-sidecar").configMap | quote -}}
{{- end }}
