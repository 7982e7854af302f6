{{- define "berth.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "berth.selector" -}}
app.kubernetes.io/name: berth
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "berth.labels" -}}
{{ include "berth.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "berth.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "berth.name" .) -}}
{{- end -}}

{{- define "berth.image" -}}
{{- $repository := required "image.repository is empty: say where the image that `make image` builds has been pushed" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "berth.metricsAddress" -}}
{{- if contains ":" .Values.metrics.address -}}
{{- printf "[%s]:%d" .Values.metrics.address (int .Values.metrics.port) -}}
{{- else -}}
{{- printf "%s:%d" .Values.metrics.address (int .Values.metrics.port) -}}
{{- end -}}
{{- end -}}

{{/* What tells a node's pod from the pods of hooks. */}}
{{- define "berth.podSelector" -}}
{{ include "berth.selector" . }}
app.kubernetes.io/component: node
{{- end -}}

{{/* JSON's strings, numbers and booleans are TOML's, too; its objects are not. */}}
{{- define "berth.toml" -}}
{{- if kindIs "map" . -}}
{ {{- range $number, $key := keys . | sortAlpha }}{{ if $number }},{{ end }} {{ $key }} = {{ include "berth.toml" (get $ $key) }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{- range $number, $value := . }}{{ if $number }},{{ end }}{{ include "berth.toml" $value }}{{ end }}]
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end -}}

{{- define "berth.config" -}}
# From the Helm release {{ .Release.Namespace }}/{{ .Release.Name }}: what is changed here is overwritten.
{{- $config := deepCopy .Values.config -}}
{{- $metrics := dict "address" (include "berth.metricsAddress" .) -}}
{{- $_ := set $config "metrics" (mergeOverwrite $metrics (get $config "metrics" | default dict)) -}}
{{- range $section, $keys := $config }}

[{{ $section }}]
{{- range $key, $value := $keys }}
{{ $key }} = {{ include "berth.toml" $value }}
{{- end }}
{{- end }}
{{ end -}}

{{/* Flags that every `berth node` on a host has. */}}
{{- define "berth.place" -}}
- --root=/host
- --directory={{ .Values.directory }}
- --service={{ .Values.service.manager }}
{{- end -}}

{{- define "berth.hook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
