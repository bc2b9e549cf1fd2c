# All images with BuildKit, from the root of the repository:
#   docker buildx bake --file docker/docker-bake.hcl [cpu] [cuda] [tpu] [serve]
# With BuildKit 0.13 or newer, whose exporter can rewrite timestamps, the digests are reproducible too:
#   … --set '*.output=type=oci,dest=reprise.tar,rewrite-timestamp=true'
variable "BASE_IMAGE" {
  default = null # the one that the Dockerfiles pin
}

variable "REVISION" {
  default = "unknown" # REVISION=$(git rev-parse HEAD)
}

variable "SOURCE_DATE_EPOCH" {
  default = "315532800" # 1980, the earliest time that a zip archive can hold
}

group "default" {
  targets = ["cpu", "cuda", "tpu", "serve"]
}

target "image" {
  name       = hardware
  matrix     = { hardware = ["cpu", "cuda", "tpu"] }
  dockerfile = "docker/Dockerfile"
  tags       = ["reprise:${hardware}"]
  args = {
    BASE_IMAGE        = BASE_IMAGE
    HARDWARE          = hardware
    REVISION          = REVISION
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
}

target "serve" {
  dockerfile = "docker/serve/Dockerfile"
  tags       = ["reprise:serve"]
  args = {
    BASE_IMAGE        = BASE_IMAGE
    REVISION          = REVISION
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
}
