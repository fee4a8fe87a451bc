"""/v1/images: images and videos uploaded once, known by their ids, and forgotten on request."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.datastructures import FormData, UploadFile

from gateway.deadline import Deadline
from gateway.errors import BadRequest, Missing
from gateway.openapi import json_reply
from gateway.references import parse_id
from gateway.schema_service import DeletedImage, ImageBody, VideoFacts
from gateway.schema_video import COUNT, MAX_FPS, MAX_FRAMES, MIN_FPS, RATE
from gateway.service import Service, service_of, tenant_of
from gateway.streams import unless_gone
from gateway.videos import file_request, looks_like_video
from protos import vision_pb2

FIELD = "file"
BINARY: Mapping[str, Any] = {"type": "string", "format": "binary"}
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {FIELD: BINARY}, "required": [FIELD]},
            },
            "image/*": {"schema": BINARY},
            "video/*": {"schema": BINARY},
            "application/octet-stream": {"schema": BINARY},
        },
    }
}

FpsQuery = Annotated[float | None, Query(ge=MIN_FPS, le=MAX_FPS, allow_inf_nan=False, description=RATE)]
NumFramesQuery = Annotated[int | None, Query(ge=1, le=MAX_FRAMES, description=COUNT)]

router = APIRouter(prefix="/v1/images", tags=["images"])


@router.post("", response_model=ImageBody, openapi_extra=UPLOAD)
async def upload_image(request: Request, fps: FpsQuery = None, num_frames: NumFramesQuery = None) -> Response:
    """Takes an image or a video as the multipart field `file` or as the raw body, encodes it, and tells its id."""
    service = service_of(request)
    asked = upload_request(await uploaded_bytes(request), fps, num_frames)
    return await unless_gone(request, _encode(service, tenant_of(request), asked, service.deadline()))


async def _encode(service: Service, tenant: str, asked: vision_pb2.EncodeRequest, deadline: Deadline) -> Response:
    return json_reply(image_body(await service.vision.encode(asked, tenant, deadline)))


@router.get("/{image_id}", response_model=ImageBody)
async def get_image(request: Request, image_id: str) -> Response:
    """What is known of an image; nothing is encoded."""
    return json_reply(image_body(await _look_up(request, image_id)))


@router.head("/{image_id}", response_model=None)
async def head_image(request: Request, image_id: str) -> Response:
    """Whether an image is known."""
    await _look_up(request, image_id)
    return Response(media_type="application/json")


@router.delete("/{image_id}", response_model=DeletedImage)
async def delete_image(request: Request, image_id: str) -> Response:
    """Forgets an image and its embedding."""
    service = service_of(request)
    parse_id(image_id, None)
    tenant, deadline = tenant_of(request), service.deadline()
    try:
        deleted = await service.vision.delete(image_id, tenant, deadline)
    finally:
        # After the entry itself, so that nobody can fetch it again; also where a vision worker did not answer.
        await service.language.forget(image_id, tenant, deadline)
    if not deleted:
        raise Missing("there is no such image", code="image_not_found")
    return json_reply(DeletedImage(id=image_id, object="image", deleted=True))


async def _look_up(request: Request, image_id: str) -> vision_pb2.Image:
    service = service_of(request)
    return await service.vision.get(parse_id(image_id, None), tenant_of(request), service.deadline())


async def uploaded_bytes(request: Request) -> bytes:
    """The image of an upload.

    Raises:
        BadRequest: the form lacks `file` or has another field, or the image is empty.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        try:
            async with request.form(max_files=1, max_fields=1) as form:
                data = await _form_file(form)
        except UnicodeError as exc:
            # The form names its own charset.
            raise BadRequest("the form cannot be read in its charset", code="bad_form") from exc
    else:
        data = await request.body()
    if not data:
        raise BadRequest("the image is empty", param=FIELD, code="empty_image")
    return data


async def _form_file(form: FormData) -> bytes:
    for name in form:
        if name != FIELD:
            # Halves of surrogate pairs are text to some charsets, and to no reply.
            shown = name[:100].encode(errors="replace").decode()
            raise BadRequest(f"{shown}: there is no such field", param=shown, code="unknown_parameter")
    upload = form.get(FIELD)
    if not isinstance(upload, UploadFile) or len(form.multi_items()) > 1:
        raise BadRequest("file: the form needs one image in this field", param=FIELD, code="missing_required_parameter")
    return await upload.read()


def upload_request(data: bytes, fps: float | None, num_frames: int | None) -> vision_pb2.EncodeRequest:
    """What the vision worker is asked about an uploaded file.

    Raises:
        BadRequest: options of a video for an image, or both of them.
    """
    if fps is not None and num_frames is not None:
        raise BadRequest("fps and num_frames exclude each other", param="fps", code="bad_video_options")
    if looks_like_video(data):
        return file_request(data, fps, num_frames)
    if fps is not None or num_frames is not None:
        param = "fps" if fps is not None else "num_frames"
        raise BadRequest(f"{param}: this is for videos, and the file is none", param=param, code="bad_video_options")
    return vision_pb2.EncodeRequest(image=data)


def image_body(image: vision_pb2.Image) -> ImageBody:
    """The vision worker's message as JSON."""
    body = ImageBody(
        id=image.image_id,
        object="image",
        width=image.width,
        height=image.height,
        bytes=image.bytes,
        image_tokens=image.image_tokens,
        cached=image.cached,
        created=image.created,
        expires_at=image.expires_at or None,
    )
    if not image.timestamps:
        return body
    video = VideoFacts(timestamps=list(image.timestamps), seconds_per_grid=image.seconds_per_grid)
    return body.model_copy(update={"video": video})
