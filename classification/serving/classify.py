"""POST /classify: one image in, the most probable classes out."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from classification.models.decision import decide, to_probabilities
from classification.serving.bodies import Upload, find_image, receive_body
from classification.serving.models import ServedModel
from classification.serving.problems import Problem, json_response
from classification.serving.schemas import CLASSIFY_BODY, Answer, failures
from classification.serving.service import Service

TOP_K = 5  # unless it is said


def classify_routes(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    async def classify(
        request: Request,
        model: Annotated[str | None, Query(description="a model's name")] = None,
        top_k: Annotated[
            int | None,
            Query(ge=1, description="classes to name at most; 5, of multi-label models all"),
        ] = None,
        threshold: Annotated[
            float | None,
            Query(
                ge=0,
                le=1,
                description="less probable classes are not named; 0, of multi-label models the "
                "model's own thresholds",
            ),
        ] = None,
    ) -> Response:
        """Name the classes of one image."""
        chosen = service.model(model)
        content_type = request.headers.get("content-type", "")
        upload: list[Upload] = []
        async with receive_body(request, service.settings, service.bytes) as body:

            def image() -> bytes:
                upload.append(find_image(body, content_type, service.settings))
                return upload[0].data

            with service.places():
                logits, is_fallback = await service.image_logits(chosen, image)
        if not np.isfinite(logits).all():
            raise Problem(500, "the model's output is not a finite number")
        probabilities = to_probabilities(logits[None], chosen.backend.info.task)[0]
        named = answer(chosen, probabilities, top_k, threshold, is_fallback)
        return json_response({"file": upload[0].name, **named})

    router.add_api_route(
        "/classify",
        classify,
        methods=["POST"],
        response_model=Answer,
        responses=failures(400, 404, 408, 413, 415, 422, 500, 503),
        openapi_extra=CLASSIFY_BODY,
    )
    return router


def answer(
    model: ServedModel,
    probabilities: np.ndarray,
    top_k: int | None,
    threshold: float | None,
    is_fallback: bool,
) -> dict[str, Any]:
    """Return the fields of an answer; `predicted` is None when no class is named."""
    info = model.backend.info
    names = info.class_names
    top_k = top_k or (len(names) if info.multi_label else TOP_K)
    best, reason = decide(info, probabilities, top_k, threshold, is_fallback=is_fallback)
    first = int(best[0]) if len(best) else None
    return {
        "predicted": first,
        "predicted_name": None if first is None else names[first],
        "classes": [
            {"index": int(i), "class": names[i], "probability": round(float(probabilities[i]), 6)}
            for i in best
        ],
        "model": model.name,
        "reason": reason,
    }
