{{/*
secret-sidecar.requireValues fails where the library's values are not under its own name, as under an alias: then templates
would render without its defaults.
*/}}
{{- define "secret-sidecar.requireValues" -}}
{{- $values := default dict (index .Values "secret-sidecar") -}}
{{- range list "image" "config" "fsGroup" "drainTimeout" "resources" -}}
{{- $_ := required (printf "secret-sidecar.%s has no value: the dependency takes no alias, and its values stand under secret-sidecar" .) (get $values .) -}}
{{- end -}}
{{- end }}
