"""The part of KEDA's ScaledObject (keda.sh/v1alpha1) that our manifests use; whatever else is a mistake."""

from typing import Any


def _closed(required: tuple[str, ...], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


COUNT = {"type": "integer", "minimum": 1}
# Source: https://keda.sh/docs/latest/scalers/prometheus/. All of a scaler's metadata are texts.
PROMETHEUS = _closed(
    ("serverAddress", "query", "threshold"),
    {
        "serverAddress": {"type": "string", "pattern": "^https?://"},
        "query": {"type": "string"},
        "threshold": {"type": "string", "pattern": "^[0-9.]+$"},
    },
)
TRIGGER = _closed(
    ("type", "metadata"),
    {"type": {"const": "prometheus"}, "metricType": {"enum": ["AverageValue", "Value"]}, "metadata": PROMETHEUS},
)
# Source: https://keda.sh/docs/latest/reference/scaledobject-spec/
SCALED_OBJECT = _closed(
    ("apiVersion", "kind", "metadata", "spec"),
    {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "ScaledObject"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": _closed(
            ("scaleTargetRef", "triggers"),
            {
                "scaleTargetRef": _closed(("name",), {"name": {"type": "string"}}),
                "minReplicaCount": COUNT,
                "maxReplicaCount": COUNT,
                "pollingInterval": COUNT,
                "cooldownPeriod": COUNT,
                "triggers": {"type": "array", "minItems": 1, "items": TRIGGER},
            },
        ),
    },
)
