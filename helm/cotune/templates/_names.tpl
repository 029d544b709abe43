{{- define "cotune.name" -}}
{{- default .Chart.Name .Values.nameOverride -}}
{{- end -}}

{{- /* 40 characters leave room for the suffixes of roles and policies. */ -}}
{{- define "cotune.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "cotune.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "cotune.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cotune.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cotune.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cotune.labels" -}}
{{ include "cotune.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* Not those of the operator: its Deployment and its Service would count the agents as theirs. */ -}}
{{- define "cotune.nodeAgentSelectorLabels" -}}
app.kubernetes.io/name: {{ include "cotune.name" . }}-node-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cotune.nodeAgentLabels" -}}
{{ include "cotune.nodeAgentSelectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "cotune.image" -}}
{{ .repository }}{{ hasPrefix "sha256:" .tag | ternary "@" ":" }}{{ .tag }}
{{- end -}}

{{- define "cotune.artifactsClaim" -}}
{{- .Values.artifacts.existingClaim | default (printf "%s-artifacts" (include "cotune.fullname" .)) -}}
{{- end -}}

{{- define "cotune.lease" -}}
{{ include "cotune.fullname" . }}-leader
{{- end -}}

{{- /* A volume that one node at a time may have keeps all replicas on that node. */ -}}
{{- define "cotune.isOnOneNode" -}}
{{- if and .Values.artifacts.enabled (eq .Values.artifacts.accessMode "ReadWriteOnce") }}true{{ end -}}
{{- end -}}

{{- define "cotune.affinity" -}}
{{- if .Values.affinity }}
{{- toYaml .Values.affinity }}
{{- else if include "cotune.isOnOneNode" . }}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "cotune.selectorLabels" . | nindent 10 }}
{{- else }}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "cotune.selectorLabels" . | nindent 12 }}
{{- end }}
{{- end -}}

{{- define "cotune.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "cotune.fullname" . }}
{{- end -}}

{{- define "cotune.subjects" -}}
- kind: ServiceAccount
  name: {{ include "cotune.fullname" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
