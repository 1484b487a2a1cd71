// What the tests share: the graph of railway.ts, as Railway's command line makes it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRailwayContext, project, RAILWAY_GRAPH_VERSION } from "railway/iac";
import type { DatabaseNode, Edge, RailwayGraph, ResourceNode, ServiceNode } from "railway/iac";
import program from "./railway.ts";

export const environments = ["production", "staging"] as const;

/** A file of the project. */
export const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");

/** The resources as JSON, and an edge for every variable that refers to another resource. */
export async function evaluate(environment: string | undefined, image?: string): Promise<RailwayGraph> {
  const { BULKHEAD_IMAGE: former } = process.env;
  delete process.env.BULKHEAD_IMAGE;
  if (image !== undefined) {
    process.env.BULKHEAD_IMAGE = image;
  }
  try {
    const definition = await program(createRailwayContext(environment === undefined ? {} : { environment }), project);
    const resources: ResourceNode[] = JSON.parse(JSON.stringify(definition.resources ?? [])).flat();
    return {
      version: RAILWAY_GRAPH_VERSION,
      project: { name: definition.name },
      environments: [],
      resources,
      edges: resources.flatMap((resource) =>
        Object.entries("variables" in resource ? (resource.variables ?? {}) : {}).flatMap(([key, value]): Edge[] =>
          value.type === "reference" ? [{ from: resource.address, to: value.resource, type: "variable", key }] : [],
        ),
      ),
    };
  } finally {
    delete process.env.BULKHEAD_IMAGE;
    if (former !== undefined) {
      process.env.BULKHEAD_IMAGE = former;
    }
  }
}

/** The resource of this address, which must be there. */
export function resource<A extends ServiceNode["address"] | DatabaseNode["address"]>(graph: RailwayGraph, address: A) {
  const found = graph.resources.find((resource) => resource.address === address);
  assert(found, `the graph has ${address}`);
  return found as A extends ServiceNode["address"] ? ServiceNode : DatabaseNode;
}

/** The values of a tree by their paths: `deploy.overlapSeconds`. Lists and whatever else is no object are values. */
export function values(tree: object, path: string[] = []): [string, unknown][] {
  return Object.entries(tree).flatMap(([key, value]): [string, unknown][] =>
    value !== null && typeof value === "object" && !Array.isArray(value)
      ? values(value, [...path, key])
      : [[[...path, key].join("."), value]],
  );
}
