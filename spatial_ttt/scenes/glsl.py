"""The GLSL programs of the renderer.

Pass 1 (visibility) draws the faces of the parts' boxes that look at the camera and keeps, per
sample, the number of the nearest part, from 1. Boxes are their own faces; a cylinder or ellipsoid
is cut out of its box by meeting the pixel's ray with it. Pass 2 (shading) covers each pixel once:
it meets the winning part again, exactly, and writes colour, object id and depth.
Frames are stacked from bottom to top of one tall target, image row 0 lowest, so that what is read
back is already [T, H, W].
"""

from __future__ import annotations

from spatial_ttt.scenes.shading import BACKGROUND
from spatial_ttt.scenes.shading_code import shade_glsl
from spatial_ttt.scenes.views import NEAR

PART_TEXELS = 5
"""RGBA32UI texels of a part, as `pack_texels` of the renderer makes them."""
PARTS_PER_ROW = 256
"""Parts side by side in their texture."""
ENTRIES_PER_ROW = 4096
"""Faces to draw side by side in their texture."""
FACE_INDICES = (0, 1, 2, 2, 1, 3)
"""The two triangles of a face over its four corners."""

_HEAD = f"""
#version 430
uniform usampler2D parts;
uniform sampler2D views;         // 6 texels a frame: rows of world to camera, of camera to world
uniform vec4 lens;               // focal lengths and principal point in samples
uniform ivec2 size;              // samples across and down one frame
uniform int frames;              // frames in the stack
const float NEAR = {NEAR};
const int BOX = 0, CYLINDER = 1, ELLIPSOID = 2;

uvec4 part_texel(int part, int i) {{
    return texelFetch(parts, ivec2((part & {PARTS_PER_ROW - 1}) * {PART_TEXELS} + i,
        part >> {PARTS_PER_ROW.bit_length() - 1}), 0);
}}
vec3 real(uvec4 bits) {{ return uintBitsToFloat(bits.xyz); }}
// Two bfloat16 in a word: the upper halves of two floats.
vec2 two(uint word) {{ return uintBitsToFloat(uvec2(word << 16, word & 0xFFFF0000u)); }}
mat3 own_axes(vec3 x, vec3 y) {{ return mat3(x, y, cross(x, y)); }}
"""

_MEET = """
// Where the ray o + t d enters a unit solid, and the normal there; false if it passes by.
// One formula for all: a box is three slabs, a cylinder a round side and a slab, a ball round.
bool meet(int kind, vec3 o, vec3 d, out float t, out vec3 n) {
    vec3 inverse = 1.0 / mix(d, vec3(1e-12), equal(d, vec3(0.0)));
    vec3 middle = -o * inverse, reach = abs(inverse);
    vec3 enter = middle - reach, leave = middle + reach;
    float ball = kind == ELLIPSOID ? 1.0 : 0.0;
    vec3 od = vec3(o.xy, o.z * ball), dd = vec3(d.xy, d.z * ball);
    float a = max(dot(dd, dd), 1e-20), along = -dot(od, dd) / a;
    vec3 nearest = od + along * dd;
    float rest = 1.0 - dot(nearest, nearest), root = sqrt(max(rest, 0.0) / a);
    bool is_box = kind == BOX, is_ball = kind == ELLIPSOID;
    float side = is_box ? max(enter.x, enter.y) : along - root;
    float out_side = is_box ? min(leave.x, leave.y) : along + root;
    float cap = is_ball ? -1e30 : enter.z;
    t = max(side, cap);
    vec3 facing = -sign(d), flat_ = enter.x > enter.y ? vec3(facing.x, 0, 0) : vec3(0, facing.y, 0);
    n = is_box ? flat_ : od + t * dd;
    n = side > cap ? n : vec3(0.0, 0.0, facing.z);
    return t <= min(out_side, is_ball ? 1e30 : leave.z) && (is_box || rest >= 0.0);
}
"""


def visibility_vertex(is_round: bool) -> str:
    """Places a face of a part's box; for round parts also gives the ray in the part's own units."""
    outputs = "flat out vec3 unit_o, unit_x, unit_y, unit_z;\nflat out ivec2 tag;" * is_round
    rays = """
    vec3 r0 = view_row(frame, 3).xyz, r1 = view_row(frame, 4).xyz, r2 = view_row(frame, 5).xyz;
    vec3 eye = vec3(view_row(frame, 3).w, view_row(frame, 4).w, view_row(frame, 5).w);
    unit_o = ((eye - center) * axes) / half_;
    unit_x = (vec3(r0.x, r1.x, r2.x) * axes) / half_;
    unit_y = (vec3(r0.y, r1.y, r2.y) * axes) / half_;
    unit_z = (vec3(r0.z, r1.z, r2.z) * axes) / half_;
    tag = ivec2(frame, int(part_texel(part, 0).w & 3u));
    """
    return f"""{_HEAD}
uniform usampler2D entries;      // part, face and its side; frame
uniform vec2 clip_z;             // the two numbers of the depth row of the projection
flat out float number;
{outputs}

vec4 view_row(int frame, int i) {{ return texelFetch(views, ivec2(i, frame), 0); }}

void main() {{
    int entry = gl_VertexID >> 2, corner = gl_VertexID & 3;
    uvec2 item = texelFetch(entries, ivec2(entry & {ENTRIES_PER_ROW - 1},
        entry >> {ENTRIES_PER_ROW.bit_length() - 1}), 0).xy;
    int part = int(item.x >> 3), face = int((item.x >> 1) & 3u), frame = int(item.y);
    vec2 square = vec2(corner & 1, corner >> 1) * 2.0 - 1.0;
    float side = float(item.x & 1u) * 2.0 - 1.0;
    vec3 center = real(part_texel(part, 0)), half_ = real(part_texel(part, 1));
    mat3 axes = own_axes(real(part_texel(part, 2)), real(part_texel(part, 3)));
    vec3 local = face == 0 ? vec3(side, square)
        : (face == 1 ? vec3(square.x, side, square.y) : vec3(square, side));
    vec4 point = vec4(center + axes * (local * half_), 1.0);
    vec3 camera = vec3(dot(view_row(frame, 0), point), dot(view_row(frame, 1), point),
        dot(view_row(frame, 2), point));
    float row = lens.y * camera.y + lens.w * camera.z, height = float(size.y) * camera.z;
    gl_ClipDistance[0] = row;    // keep a frame off its neighbours in the stack
    gl_ClipDistance[1] = height - row;
    gl_Position = vec4(
        2.0 * (lens.x * camera.x + lens.z * camera.z) / float(size.x) - camera.z,
        2.0 * (row + float(frame) * height) / float(frames * size.y) - camera.z,
        clip_z.x * camera.z + clip_z.y, camera.z);
    number = float(part + 1);
    {rays * is_round}
}}
"""


VISIBILITY_BOX = """
#version 430
flat in float number;
layout(location = 0) out float winner;
void main() { winner = number; }
"""

VISIBILITY_ROUND = f"""{_HEAD}{_MEET}
uniform vec2 clip_z;
flat in vec3 unit_o, unit_x, unit_y, unit_z;
flat in ivec2 tag;
flat in float number;
layout(location = 0) out float winner;

void main() {{
    vec2 pixel = vec2(gl_FragCoord.x, gl_FragCoord.y - float(tag.x * size.y));
    vec2 ray = (pixel - lens.zw) / lens.xy;
    float t;
    vec3 n;
    bool met = meet(tag.y, unit_o, unit_x * ray.x + unit_y * ray.y + unit_z, t, n);
    if (!met || t < NEAR) discard;
    gl_FragDepth = clamp(0.5 * (clip_z.x + clip_z.y / t) + 0.5, 0.0, 1.0);
    winner = number;
}}
"""

SHADING_VERTEX = f"""{_HEAD}
flat out vec3 eye, right, down, forward;
flat out int frame;

void main() {{
    frame = gl_VertexID >> 2;
    int corner = gl_VertexID & 3;
    vec4 r0 = texelFetch(views, ivec2(3, frame), 0), r1 = texelFetch(views, ivec2(4, frame), 0);
    vec4 r2 = texelFetch(views, ivec2(5, frame), 0);
    eye = vec3(r0.w, r1.w, r2.w);
    right = vec3(r0.x, r1.x, r2.x);
    down = vec3(r0.y, r1.y, r2.y);
    forward = vec3(r0.z, r1.z, r2.z);
    vec2 place = vec2(corner & 1, float(frame + (corner >> 1)) / float(frames));
    gl_Position = vec4(place * 2.0 - 1.0, 0.0, 1.0);
}}
"""

# The numbers of the material: eleven bfloat16 in pairs, and the emission beside the kind.
_PATTERN = "ab.x, ab.y, cd.x, cd.y, ef.x, ef.y, gh.x, gh.y, ij.x, ij.y, bk.y, emission"


def _draw_sample() -> str:
    """`draw`: the colour, depth and object id of the part that won a sample."""
    background = ", ".join(repr(c / 255) for c in BACKGROUND)
    return f"""
vec3 draw(int number, vec2 sample_, out float depth, out int id) {{
    int part = max(number - 1, 0);
    uvec4 b0 = part_texel(part, 0), b1 = part_texel(part, 1), b2 = part_texel(part, 2);
    uvec4 b3 = part_texel(part, 3), b4 = part_texel(part, 4);
    vec3 half_ = real(b1);
    mat3 axes = own_axes(real(b2), real(b3));
    vec2 ab = two(b1.w), cd = two(b2.w), ef = two(b3.w);
    vec2 gh = two(b4.x), ij = two(b4.y), rg = two(b4.z);
    vec2 bk = two(b4.w);
    float emission = float((b0.w >> 2) & 3u);
    id = int(b0.w >> 4);
    vec2 slope = (sample_ - lens.zw) / lens.xy;
    vec3 ray = slope.x * right + slope.y * down + forward, scale = 1.0 / half_;
    vec3 n;
    meet(int(b0.w & 3u), ((eye - real(b0)) * axes) * scale, (ray * axes) * scale, depth, n);
    vec3 world = eye + depth * ray;
    vec3 local = clamp((world - real(b0)) * axes, -half_, half_);
    n = normalize(n * scale);
    vec3 up = axes * n;
    vec3 color = shade(local.x, local.y, local.z, n.x, n.y, n.z, world.x, world.y, world.z,
        up.x, up.y, up.z, depth * float(SAMPLES) / lens.x, half_.x, half_.y, half_.z,
        rg.x, rg.y, bk.x, float(id), {_PATTERN});
    bool nothing = number == 0;
    id = nothing ? 0 : id;
    depth = nothing ? 0.0 : depth;
    return nothing ? vec3({background}) : color;
}}
"""


def shading_fragment(samples: int) -> str:
    """Colour, object id and depth of a pixel of samples x samples samples.

    A pixel whose samples all show one part is shaded once, in its middle; another takes the mean
    colour of its samples, and the id and depth of the sample just past its middle. The choice is a
    loop, not a branch: llvmpipe walks through both sides of a branch, but leaves a loop early.
    """
    return f"""{_HEAD}{_MEET}{shade_glsl()}
uniform sampler2D winners;
flat in vec3 eye, right, down, forward;
flat in int frame;
layout(location = 0) out vec4 color_out;
layout(location = 1) out int id_out;
layout(location = 2) out float depth_out;
const int SAMPLES = {samples};

{_draw_sample()}
int winner_at(ivec2 at) {{ return int(texelFetch(winners, at, 0).x); }}

void main() {{
    ivec2 base = ivec2(gl_FragCoord.xy) * SAMPLES, middle = ivec2(SAMPLES / 2);
    vec2 corner = vec2(base.x, base.y - frame * size.y);
    int center = winner_at(base + middle);
    bool same = true;
    for (int i = 0; SAMPLES > 1 && i < SAMPLES * SAMPLES; i++)
        same = same && winner_at(base + ivec2(i % SAMPLES, i / SAMPLES)) == center;
    int id;
    float depth;
    vec2 spot = same ? vec2(0.5 * float(SAMPLES)) : vec2(middle) + 0.5;
    vec3 color = draw(center, corner + spot, depth, id);
    int others = same ? 0 : SAMPLES * SAMPLES;
    vec3 sum = vec3(0.0);
    for (int i = 0; i < others; i++) {{
        ivec2 at = ivec2(i % SAMPLES, i / SAMPLES);
        float other_depth;
        int other_id;
        sum += draw(winner_at(base + at), corner + vec2(at) + 0.5, other_depth, other_id);
    }}
    color_out = vec4(same ? color : sum / float(SAMPLES * SAMPLES), 1.0);
    id_out = id;
    depth_out = depth;
}}
"""
