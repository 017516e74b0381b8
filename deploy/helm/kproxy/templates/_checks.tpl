{{/* What the schema cannot say about the values. Prints nothing, or ends with what is wrong. */}}
{{- define "kproxy.checks" -}}
{{- $config := .Values.config }}
{{- if regexMatch "^https://kubernetes\\.default([.:]|$)" (lower .Values.apiServer) }}
{{- fail "apiServer must work without Services, and kubernetes.default is one: name a load balancer or a control-plane node" }}
{{- end }}
{{- range $name := list "healthzBindAddress" "metricsBindAddress" }}
{{- if gt (include "kproxy.port" (get $config $name) | int) 65535 }}
{{- fail (printf "config.%s: there is no port above 65535" $name) }}
{{- end }}
{{- end }}
{{- if eq (include "kproxy.port" $config.healthzBindAddress) (include "kproxy.port" $config.metricsBindAddress) }}
{{- fail "config.healthzBindAddress and config.metricsBindAddress must have different ports" }}
{{- end }}
{{- range $name := keys (include "kproxy.selector" . | fromYaml) }}
{{- if hasKey ($.Values.podLabels | default dict) $name }}
{{- fail (printf "podLabels must not have %s: the DaemonSet finds its pods by it" $name) }}
{{- end }}
{{- end }}
{{- if and .Values.podMonitor.enabled (regexMatch "^(127\\.|localhost:|\\[::1\\]:)" $config.metricsBindAddress) }}
{{- fail "podMonitor.enabled needs a config.metricsBindAddress that Prometheus can reach, such as 0.0.0.0:10249" }}
{{- end }}
{{- end }}
